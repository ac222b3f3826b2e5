"""Workers of a loader: the same batches from threads and processes, errors that say where, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wgpu_nn.data import DataLoader, StreamLoader, mapped_stream
from wgpu_nn.data.workers import WorkerTraceback
from wgpu_nn.errors import DataError

ROOT = Path(__file__).parents[2]
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


class Numbers:
    """A data set of 23 rows of odd shape, and something odd at item ``bad``."""

    def __init__(self, bad: int = -1, how: str = "raise") -> None:
        self.bad, self.how = bad, how

    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: Any, /) -> tuple[np.ndarray, ...]:
        if self.bad in np.atleast_1d(index):
            if self.how == "raise":
                raise KeyError("disk on fire")
            if self.how == "exit":
                os._exit(3)
            os.kill(os.getpid(), signal.SIGKILL)
        return np.asarray(index) * np.ones((3, 0, 1)).sum() + np.asarray(index), np.full(np.shape(index), os.getpid())


def noisy(item: tuple[Any, ...], generator: np.random.Generator) -> tuple[Any, ...]:
    return item[0] + generator.random(5), *item[1:]


def half(batch: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return batch[0] / 2, *batch[1:]


def double(number: int) -> tuple[int]:
    return (2 * number,)


def children() -> list[Any]:
    return [p for p in multiprocessing.active_children() if p.name.startswith("wgpu_nn-loader")]


def read(loader: DataLoader | StreamLoader, epoch: int, start: int = 0) -> list[Any]:
    return [batch[0].tolist() for batch in loader.epoch(epoch, start)]


def test_batches_do_not_depend_on_who_reads_them():
    def made(**how: Any) -> DataLoader:
        return DataLoader(Numbers(), 4, shuffle=True, seed=7, augment=noisy, transform=half, **how)

    expected = [read(made(workers=0), epoch) for epoch in range(3)]
    assert expected[0] != expected[1]
    for workers in (1, 2, 3, 9):
        assert [read(made(workers=workers), epoch) for epoch in range(3)] == expected
    loader = made(workers=2, kind="process")
    assert [read(loader, epoch) for epoch in range(3)] == expected
    for start in (1, 4, 6):
        assert read(loader, 1, start) == expected[1][start:] == read(made(workers=3), 1, start)
    loader.close()
    assert children() == []


def test_streamed_batches_do_not_depend_on_who_reads_them():
    stream = mapped_stream(range(23), double)
    expected = [[0, 2, 4, 6, 8], [10, 12, 14, 16, 18], [20, 22, 24, 26, 28], [30, 32, 34, 36, 38], [40, 42, 44]]
    for workers in (0, 1, 2, 3, 7):
        assert read(StreamLoader(stream, 5, workers=workers), 0) == expected
        assert read(StreamLoader(stream, 5, workers=workers), 0, 2) == expected[2:]
    loader = StreamLoader(stream, 5, workers=2, kind="process")
    assert read(loader, 0) == expected and read(loader, 0, 3) == expected[3:]
    loader.close()


def test_processes_stay_for_the_next_epoch_and_end_with_the_loader():
    loader = DataLoader(Numbers(), 4, shuffle=False, seed=0, workers=2, kind="process")
    seen = [{int(pid) for _, pids in loader.epoch(e) for pid in pids} for e in range(2)]
    assert len(seen[0]) == 2 and seen[0] == seen[1] and os.getpid() not in seen[0]
    assert len(children()) == 2
    pairs = zip(loader.epoch(0), loader.epoch(0), strict=True)  # the second finds them at work, and takes others
    assert all(a.tolist() == b.tolist() and (p != q).all() for (a, p), (b, q) in pairs)
    assert len(children()) == 2
    del loader, pairs
    assert children() == []


def test_arrays_of_a_process_are_one_s_own():
    for x, _ in DataLoader(Numbers(), 23, shuffle=False, seed=0, workers=1, kind="process").epoch(0):
        x += 1
        assert x.flags.owndata or x.base is not None
        assert x[0] == 1


def test_leaving_the_loop_ends_the_processes():
    loader = DataLoader(Numbers(), 1, shuffle=False, seed=0, workers=2, kind="process")
    for _ in loader.epoch(0):
        break
    assert children() == []
    assert len(read(loader, 0)) == 23
    loader.close()
    loader.close()
    assert children() == []


@pytest.mark.parametrize(("kind", "workers"), [("thread", 3), ("process", 2)])
def test_an_exception_comes_with_its_traceback_and_item(kind: Any, workers: int):
    loader = DataLoader(Numbers(9), 4, shuffle=False, seed=0, workers=workers, kind=kind)
    seen: list[Any] = []
    with pytest.raises(
        DataError, match=r"batch 2 of epoch 5 failed, items \[8, 9, 10, 11\]: KeyError.*it is item 9"
    ) as caught:
        for x, _ in loader.epoch(5):
            seen.append(x.tolist())
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7]]
    text = "".join(traceback.format_exception(caught.value))
    assert "disk on fire" in text and 'raise KeyError("disk on fire")' in text and "in __getitem__" in text
    assert isinstance(caught.value.__cause__, KeyError if kind == "thread" else WorkerTraceback)
    assert children() == []


@POSIX
@pytest.mark.parametrize(("how", "said"), [("kill", "was killed by SIGKILL"), ("exit", "ended with exit status 3")])
def test_a_worker_that_dies_is_an_error_and_no_hang(how: str, said: str):
    loader = DataLoader(Numbers(9, how), 4, shuffle=False, seed=0, workers=2, kind="process")
    with pytest.raises(DataError, match=f"worker 0 of 2, but the process {said}"):
        list(loader.epoch(0))
    assert children() == []


def test_what_cannot_be_pickled_is_refused_before_any_process_starts():
    loader = DataLoader(Numbers(), 4, shuffle=False, seed=0, workers=2, kind="process", transform=lambda batch: batch)
    with pytest.raises(DataError, match=r"expected a data set and functions that can be pickled.*kind='thread'"):
        list(loader.epoch(0))
    assert children() == []


class Unwelcome:
    """A data set that cannot be unpickled."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: Any, /) -> tuple[np.ndarray, ...]:
        return (np.asarray(index),)

    def __setstate__(self, state: object) -> None:
        raise RuntimeError("not here")

    def __getstate__(self) -> int:
        return 1


def test_what_cannot_be_unpickled_says_so():
    with pytest.raises(DataError, match=r"can unpickle, got RuntimeError: not here.*kind='thread'"):
        list(DataLoader(Unwelcome(), 4, shuffle=False, seed=0, workers=1, kind="process").epoch(0))
    assert children() == []


@pytest.mark.parametrize("wrong", [{"workers": -1}, {"prefetch": -1}, {"kind": "fork"}])
def test_workers_that_cannot_be_are_refused(wrong: dict[str, Any]):
    with pytest.raises(DataError, match="expected workers >= 0, prefetch >= 0 and kind"):
        DataLoader(Numbers(), 4, shuffle=False, seed=0, **wrong)


SCRIPT = """
import sys, time
import numpy as np
from wgpu_nn.data import DataLoader

class Slow:
    def __len__(self):
        return 1000
    def __getitem__(self, index):
        import os
        time.sleep(0.01)
        return (np.full(len(index), os.getpid()),)

if __name__ == "__main__":
    seen = set()
    for (pids,) in DataLoader(Slow(), 2, shuffle=False, seed=0, workers=2, kind="process").epoch(0):
        if int(pids[0]) not in seen:
            seen.add(int(pids[0]))
            print(pids[0], flush=True)
"""


@POSIX
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_kill_leave_no_processes_behind(tmp_path: Path, how: signal.Signals):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    assert process.stdout is not None
    workers = [int(process.stdout.readline()) for _ in range(2)]
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does: to all of them
    else:
        process.kill()
    _, errors = process.communicate(timeout=60)
    assert errors.count("Traceback") == (how == signal.SIGINT), errors
    deadline = time.monotonic() + 30
    while any(lives(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(lives(pid) for pid in workers)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
