"""What the training loop is made of, part by part: a module's file, the window of metrics, the log, the progress."""

from __future__ import annotations

import builtins
import io
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wgpu_nn import Device, tensor
from wgpu_nn.backends.numpy import Numpy
from wgpu_nn.data import ArrayDataset, DataLoader
from wgpu_nn.errors import DataError, RecordError
from wgpu_nn.nn import DropoutConfig, Linear, LinearConfig
from wgpu_nn.record import load_module, save_module
from wgpu_nn.train import EpochRecord, Lines, Snapshot, progress, read_log, window
from wgpu_nn.train.log import Log
from wgpu_nn.train.window import Steps, Sums, Window


def layer(device: Device, width: int = 10) -> Linear:
    return LinearConfig(784, width).init(device)


# --- a module's file -------------------------------------------------------------------------------------------------
def test_a_module_comes_back_from_its_file_on_another_device(tmp_path: Path):
    device = Device("numpy")
    first, second = layer(device), layer(Device("numpy:f64").autodiff())
    save_module(first, tmp_path / "m.safetensors", {"config": "{}"})
    load_module(second, tmp_path / "m.safetensors")
    for name, value in first.state().items():
        assert np.array_equal(second.state()[name].numpy(), value.numpy())
    assert second.device == Device("numpy:f64").autodiff()


def test_a_file_that_is_missing_truncated_foreign_or_another_models_leaves_the_module_alone(tmp_path: Path):
    device = Device("numpy")
    module, path = layer(device), tmp_path / "m.safetensors"
    before = {name: value.numpy().tobytes() for name, value in module.state().items()}

    def check(match: str) -> None:
        with pytest.raises(RecordError, match=match):
            load_module(module, path)
        assert {name: value.numpy().tobytes() for name, value in module.state().items()} == before

    check("m.safetensors")
    save_module(module, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    check("safetensors file")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" * 100)
    check("safetensors file")
    save_module(layer(device, 11), path)
    check(r"weight of Float \[784, 10\], got Float \[784, 11\]")
    save_module(DropoutConfig(0.5).init(), path)
    check(r"another model: missing \['bias', 'weight'\]")


def test_an_empty_data_set_is_a_data_error():
    with pytest.raises(DataError, match="at least one item"):
        DataLoader(ArrayDataset(np.zeros((0, 28, 28)), np.zeros(0, np.int32)), 32, shuffle=True, seed=0)


# --- the parts -------------------------------------------------------------------------------------------------------
class Slow:
    """An array that comes when it is told to."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.here, self.waited = array, False, False

    def ready(self) -> bool:
        return self.here

    def result(self) -> np.ndarray:
        self.waited |= not self.here
        return self.array


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[Slow]:
    """Lets all reads of the CPU come late; they are listed in order, losses and counts by turns."""
    monkeypatch.setattr(window, "READ_SECONDS", 1e9)
    monkeypatch.setattr(window, "LOOK_SECONDS", 0.0)
    open_reads: list[Slow] = []

    def later(self: object, handles: Sequence[np.ndarray]) -> list[Slow]:
        open_reads.extend(slow := [Slow(handle.copy()) for handle in handles])
        return slow

    monkeypatch.setattr(Numpy, "download_later", later)
    return open_reads


def put(made: Window, i: int) -> list[float]:
    """Put down step ``i``, and return the numbers of the steps before that come."""
    device = Device("numpy")
    made.put({"loss": tensor(0.5 * i, device), "other": tensor(float(i), device)})
    return numbers(made.note(7, 0.1))


def numbers(steps: Steps) -> list[float]:
    """Return the numbers of steps, whose values must be theirs."""
    found = list(steps.values.get("other", ()))
    assert list(steps.values.get("loss", ())) == [0.5 * i for i in found]
    assert list(steps.items) == [7] * len(found) and list(steps.rates) == [0.1] * len(found)
    return found


def test_a_window_gives_back_what_was_put_in_when_it_has_come(slow: list[Slow]):
    made = Window(Device("numpy"), room=3)
    assert numbers(made.read()) == []
    made.clear()
    assert put(made, 0) == [] and len(slow) == 2  # the first step is asked for at once
    assert put(made, 1) == [] and len(slow) == 2 and made.unread == 2
    for read in slow:
        read.here = True
    assert put(made, 2) == [0] and len(slow) == 2 and made.unread == 2
    assert put(made, 3) == [] and len(slow) == 4  # no room left: asked for the three
    assert put(made, 4) == [] and put(made, 5) == []
    assert not any(read.waited for read in slow)
    assert numbers(made.read()) == [1, 2, 3, 4, 5] and made.unread == 0 and numbers(made.read()) == []


def test_a_window_without_room_waits_for_the_read_before(slow: list[Slow]):
    made = Window(Device("numpy"), room=2)
    for i in (0, 1):
        assert put(made, i) == []
    assert put(made, 2) == [0] and slow[0].waited
    assert put(made, 3) == [] and made.unread == 3
    assert put(made, 4) == [1, 2] and len(slow) == 6


def test_a_slow_device_is_asked_often_enough_to_answer_within_a_second(monkeypatch: pytest.MonkeyPatch):
    """Whoever presses Ctrl-C waits for what is under way."""
    device, clock = Device("numpy"), [0.0]
    done: list[float] = []  # when the device is done with a step: each takes a tenth of a second

    class InTime(Slow):
        def __init__(self, array: np.ndarray) -> None:
            super().__init__(array)
            self.at = done[-1]

        def ready(self) -> bool:
            return clock[0] >= self.at

        def result(self) -> np.ndarray:
            clock[0] = max(clock[0], self.at)
            return self.array

    def later(self: object, handles: Sequence[np.ndarray]) -> list[InTime]:
        return [InTime(handle.copy()) for handle in handles]

    monkeypatch.setattr(Numpy, "download_later", later)
    monkeypatch.setattr(window.time, "perf_counter", lambda: clock[0])
    made, behind, came = Window(device), list[float](), list[float]()
    for i in range(200):
        done.append(max(clock[0], done[-1] if done else 0.0) + 0.1)
        made.put({"loss": tensor(float(i), device)})
        came += made.note(1).losses
        behind.append(done[-1] - clock[0])
        clock[0] += 1e-4  # of the host
    assert came == list(range(len(came))) and len(came) > 180
    assert max(behind) < 1.7 and max(behind[30:]) <= 1.1


def test_a_cleared_window_forgets_what_is_under_way(slow: list[Slow]):
    made = Window(Device("numpy"), room=3)
    for i in range(3):
        put(made, i)
    made.clear()
    assert made.unread == 0 and put(made, 9) == []
    assert numbers(made.read()) == [9]


def test_means_over_nothing_are_nan():
    assert math.isnan(Sums().means()["loss"])


def test_a_log_that_is_none_is_a_record_error(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(RecordError, match="readable"):
        read_log(path)
    for text in ("[1]\n", "{}\n", "no\n"):
        path.write_text(text)
        with pytest.raises(RecordError, match="line 1"):
            read_log(path)
    with pytest.raises(RecordError, match="append"):
        Log(tmp_path / "none" / "m.jsonl").write([{"kind": "step"}])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


NOW = Snapshot(2, 10, 45, 141, {"loss": 0.83124, "accuracy": 0.731}, 1412.4, 130.2, lr=0.001)
RECORD = EpochRecord(2, 282, {"loss": 0.3, "accuracy": 0.905}, {"loss": 0.2}, 0.001, 65.0, 1466.1)


def shown(out: io.StringIO) -> str:
    show = progress(out)
    show.begin({"accuracy": "higher"})
    for _ in range(3):
        show.update(NOW)
    show.epoch(RECORD)
    show.note("[note]")
    show.end()
    return out.getvalue()


def test_without_a_terminal_progress_is_a_line_now_and_then():
    assert shown(io.StringIO()).splitlines() == [
        "epoch 2/10  batch 45/141  loss 0.8312  accuracy 0.7310  lr 0.0010  1,412 items/s  2:10 min left",
        "epoch 2 done  |  train loss 0.3000  accuracy 0.9050  |  valid loss 0.2000  |  1:05 min, 1,466 items/s",
        "[note]",
    ]


def test_on_a_terminal_progress_is_a_dashboard(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    text = shown(Terminal())
    for part in ("2/10", "batch 45/141", "2:10 min left", "0.8312", "lr 0.0010", "━", "\x1b", "[note]", "Ctrl-C saves"):
        assert part in text, part
    assert "epoch   2" in text and "0.9050" in text


def test_without_rich_a_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def absent(name: str, *args: Any) -> Any:
        if name.split(".")[0] == "rich":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", absent)
    monkeypatch.delitem(sys.modules, "wgpu_nn.train.dashboard", raising=False)
    assert isinstance(progress(Terminal()), Lines)
    assert "\x1b" not in shown(Terminal())
