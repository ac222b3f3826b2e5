"""Submits on a thread of their own: their order, and where what goes wrong with them is raised."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import pytest

from wgpu_nn import Device, ones, tensor
from wgpu_nn.backends.base import Pending
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.errors import DeviceError
from wgpu_nn.gpu import Gpu, choose
from wgpu_nn.gpu.sender import AHEAD, Submission
from wgpu_nn.kernels import Target
from wgpu_nn.tensor import Tensor, read_later
from wgpu_nn.train import capture

pytestmark = pytest.mark.unwatched("a device that watches submits at once, and waits")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Submits wait for it."""
    event, submit = threading.Event(), Submission.submit

    def held(self: Submission, queue: object) -> int:
        assert event.wait(30)
        return submit(self, queue)  # pyright: ignore

    monkeypatch.setattr(Submission, "submit", held)
    yield event
    event.set()


def doubled(device: Device) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return ones, and a captured step that doubles."""
    x, step = ones((5,), device), capture(lambda x: x * 2.0)
    step(x)
    device.sync()
    return x, step


def test_a_captured_call_does_not_wait_for_its_submit(gpu_device: Device, gate: threading.Event) -> None:
    gate.set()
    x, step = doubled(gpu_device)
    gate.clear()
    y = step(x)
    assert y.shape == (5,)
    gate.set()
    assert y.numpy().tolist() == [2.0] * 5


def test_only_a_few_submits_wait(gpu_device: Device, gate: threading.Event) -> None:
    gate.set()
    x, step = doubled(gpu_device)
    gate.clear()
    for _ in range(AHEAD):
        x = step(x)
    late: list[Tensor] = []
    thread = threading.Thread(target=lambda: late.append(step(x)))
    thread.start()
    thread.join(0.2)
    assert thread.is_alive() and not late
    gate.set()
    thread.join(30)
    assert late[0].numpy().tolist() == [2.0 ** (AHEAD + 1)] * 5


def test_whatever_comes_next_comes_behind_what_waits(gpu_device: Device, gate: threading.Event) -> None:
    gate.set()
    x, step = doubled(gpu_device)
    total = ones((5,), gpu_device)
    gate.clear()
    opener = threading.Timer(0.2, gate.set)
    opener.start()
    for n in range(20):  # captured, eager, uploads small and large
        total = step(total)
        total = total - x * 0.5
        if n % 5 == 0:
            total = total + tensor(np.full((5,), 0.5, np.float32), gpu_device)
            total = total + tensor(np.zeros((3_000_000,), np.float32), gpu_device)[:5]
    want = 1.0
    for n in range(20):
        want = 2.0 * want - 0.5 + (0.5 if n % 5 == 0 else 0.0)
    assert total.numpy().tolist() == [want] * 5


@pytest.mark.parametrize("by", ["sync", "read", "call", "upload"])
def test_what_goes_wrong_is_raised_once_by_the_next_call(
    gpu_device: Device, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    x, step = doubled(gpu_device)
    large = np.zeros((3_000_000,), np.float32)
    uses = {
        "sync": gpu_device.sync,
        "read": x.numpy,
        "call": lambda: [step(x) for _ in range(AHEAD + 1)],
        "upload": lambda: tensor(large, gpu_device),
    }
    with monkeypatch.context() as patch:
        patch.setattr(Submission, "submit", lambda *of: (_ for _ in ()).throw(RuntimeError("the driver says no")))
        step(x)
        while gpu_device.gpu.stream._sender._outbox.empty():  # pyright: ignore
            time.sleep(0.001)
    with pytest.raises(DeviceError, match="the driver says no"):
        uses[by]()
    uses[by]()
    assert step(x).numpy().tolist() == [2.0] * 5


# --- reads that go along ---------------------------------------------------------------------------------------------
def test_a_late_read_goes_to_the_device_at_once(gpu_device: Device) -> None:
    x, counts = ones((5,), gpu_device), gpu_device.gpu.counts
    gpu_device.sync()
    y, before = x + 1.0, counts.copy()
    late = y.numpy_later()
    made = counts.since(before)
    assert (made.submits, made.launches, made.reads) == (1, 1, 1)  # the addition, too
    assert late.result().tolist() == [2.0] * 5 and counts.since(before).submits == 1


def test_tensors_that_are_read_together_share_a_submit(gpu_device: Device) -> None:
    made = {n: ones((n,), gpu_device) * float(n) for n in range(6)}
    made[6] = made[3][1:]
    elsewhere = ones((2,), Device("numpy"))
    gpu_device.sync()
    counts = gpu_device.gpu.counts
    before = counts.copy()
    late = read_later({**made, 7: elsewhere})
    assert counts.since(before).submits == 1 and list(late) == list(range(8))
    want = [[float(n)] * n for n in range(6)] + [[3.0] * 2, [1.0] * 2]
    assert [read.result().tolist() for read in late.values()] == want and counts.since(before).submits == 1


def test_a_late_read_goes_along_with_calls_that_share_a_submit(gpu_device: Device) -> None:
    x, step = ones((5,), gpu_device), capture(calls_per_submit=3)(lambda x: x * 2.0)
    for _ in range(3):
        step(x)
    counts = gpu_device.gpu.counts
    before = counts.copy()
    late: list[Pending] = []
    for _ in range(2):
        late.append((x := step(x)).numpy_later())
    assert (counts.since(before).submits, counts.since(before).reads) == (0, 2)
    x = step(x)
    assert counts.since(before).submits == 1
    assert [read.result().tolist() for read in late] == [[2.0] * 5, [4.0] * 5] and counts.since(before).submits == 1
    alone = step(x).numpy_later()
    assert counts.since(before).submits == 1
    while not alone.ready():  # asked for, it is not left behind
        pass
    assert counts.since(before).submits == 2 and alone.result().tolist() == [16.0] * 5


def test_to_ask_for_a_late_read_does_not_wait_for_submits(gpu_device: Device, gate: threading.Event) -> None:
    gate.set()
    x, step = doubled(gpu_device)
    gate.clear()
    late = step(x).numpy_later()
    assert not late.ready() and not late.ready()
    gate.set()
    assert late.result().tolist() == [2.0] * 5


@pytest.mark.parametrize("by", ["a call", "asking", "waiting"])
def test_a_late_read_whose_submit_went_wrong_says_why(
    gpu_device: Device, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    x, step = ones((5,), gpu_device), capture(calls_per_submit=2)(lambda x: x * 2.0)
    step(step(x))
    gpu_device.sync()
    late = step(x).numpy_later()  # with the next call, or when it is asked for
    with monkeypatch.context() as patch:
        patch.setattr(Submission, "submit", lambda *of: (_ for _ in ()).throw(RuntimeError("the driver says no")))
        if by == "a call":
            step(x)
        elif by == "asking":
            while not late.ready():
                time.sleep(0.001)
        begun = time.monotonic()
        for _ in range(2):
            with pytest.raises(DeviceError, match="the driver says no"):
                late.result()
        assert late.ready() and time.monotonic() - begun < 10
    with suppress(DeviceError):  # a submit of the thread tells the next call, too
        gpu_device.sync()
    assert step(x).numpy_later().result().tolist() == [2.0] * 5


def test_threads_that_call_steps_share_the_sender(gpu_device: Device) -> None:
    failures: list[object] = []

    def work(n: int) -> None:
        try:
            x, step = tensor([float(n)], gpu_device), capture(calls_per_submit=n % 3 + 1)(lambda x: x + 1.0)
            for _ in range(50):
                x = step(x)
            assert x.item() == n + 50
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


def test_the_thread_ends_with_its_device() -> None:
    def running() -> set[threading.Thread]:
        return {t for t in threading.enumerate() if t.name == "wgpu_nn submits"}

    before = running()
    own = Device.of(Wgpu(Gpu(choose()[0]), Target(software=True, invocations=256, storage=16384)))
    doubled(own)
    (thread,) = running() - before
    own.gpu.destroy()
    del own
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
