"""Data that stay on the GPU: the same weights as with uploaded batches, and nothing goes up or comes down in a step."""

from __future__ import annotations

import gc
import shutil
import signal
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trial import Trial
from wgpu_nn import Device, Tensor, switches, tensor
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.data import ArrayDataset, DataLoader, mapped
from wgpu_nn.errors import CaptureError, DeviceError, TrainingError
from wgpu_nn.gpu import Counts, Gpu
from wgpu_nn.metrics import Accuracy
from wgpu_nn.models import ModelConfig
from wgpu_nn.nn import CrossEntropyLossConfig
from wgpu_nn.optim import AdamConfig
from wgpu_nn.train import Captured, Learner, capture, window
from wgpu_nn.train.feed import feed
from wgpu_nn.train.learner import TOGETHER

CONFIG = ModelConfig(10, 24)
Item = tuple[np.ndarray, ...]


def scaled(items: Item) -> Item:
    return ((items[0] / 255 - 0.1307) / 0.3081).astype(np.float32), items[1]


def drawn(n: int) -> Item:
    rng = np.random.default_rng(n)
    return rng.integers(0, 256, (n, 28, 28), np.uint8), rng.integers(0, 10, n, np.int32)


@pytest.fixture
def make(gpu_device: Device, tmp_path: Path) -> Callable[..., Trial]:
    def made(n: int, run: str = "run", keep: bool | None = None, drop_last: bool = False, **more: Any) -> Trial:
        device = more.pop("device", gpu_device)
        device.seed(5)
        model = CONFIG.init(device.autodiff())
        loss = CrossEntropyLossConfig().init()
        learner = Learner(model, AdamConfig(lr=3e-3).init(), loss, [Accuracy()], keep_on_device=keep, **more)
        train = DataLoader(mapped(ArrayDataset(*drawn(n)), scaled), 16, shuffle=True, seed=3, drop_last=drop_last)
        valid = DataLoader(mapped(ArrayDataset(*drawn(37)), scaled), 20, shuffle=False, seed=0)
        return Trial(learner, train, valid, tmp_path / run, CONFIG)

    return made


@pytest.fixture
def rare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets reads depend on the number of steps alone."""
    monkeypatch.setattr(window, "READ_SECONDS", 1e9)
    monkeypatch.setattr(window, "FIRST_STEPS", window.READ_STEPS)


def nbytes(trial: Trial) -> tuple[int, int]:
    """Return what the training and the validation data take on the device."""
    session = trial.session
    assert session.valid_feed is not None
    return session.train_feed.nbytes, session.valid_feed.nbytes


# --- the same numbers ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("n", "drop_last"), [(48, False), (48 + 5, False), (48 + 5, True), (16 + 1, False)])
def test_weights_and_metrics_are_those_of_uploaded_batches(make: Callable[..., Trial], n: int, drop_last: bool):
    kept = make(n, "kept", None, drop_last)
    found = kept.fit(2).history
    assert nbytes(kept) == (4 * n * 785, 4 * 37 * 785)
    streamed = make(n, "streamed", False, drop_last)
    expected = streamed.fit(2).history
    assert nbytes(streamed) == (0, 0)
    assert kept.weights() == streamed.weights()
    for a, b in zip(found, expected, strict=True):
        assert (a.train, a.valid) == (b.train, b.valid)


def test_eager_steps_gather_as_well(make: Callable[..., Trial]):
    with switches.capture.set(False):
        kept = make(21, "kept")
        kept.fit(1)
        streamed = make(21, "streamed", False)
        streamed.fit(1)
    assert kept.weights() == streamed.weights()


def test_a_run_stopped_in_the_middle_of_an_epoch_resumes_bit_for_bit_either_way(make: Callable[..., Trial]):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        whole = make(16 * 4 + 3, "whole")
        whole.fit(2)
        stopped = make(16 * 4 + 3, "stopped")
        stopped.after = lambda _, number: number == 7 and signal.raise_signal(signal.SIGINT)
        assert stopped.fit(2).interrupted
        for keep in (None, False):
            shutil.copytree(stopped.run, stopped.run.with_name(str(keep)))
            resumed = make(16 * 4 + 3, str(keep), keep)
            resumed.learner.device.seed(99)
            resumed.fit(2, resume=True)
            assert resumed.weights() == whole.weights()
    finally:
        signal.signal(signal.SIGINT, before)


def test_evaluation_on_another_device_keeps_the_validation_data_there(make: Callable[..., Trial]):
    apart = make(33, "apart", valid_device=Device("numpy"))
    here = apart.fit(1).history[0]
    assert nbytes(apart)[1] == 4 * 37 * 785
    streamed = make(33, "streamed", False, valid_device=Device("numpy"))
    expected = streamed.fit(1).history[0]
    assert here.valid == expected.valid


@pytest.mark.unwatched("counts submits, and a device that watches submits each launch")
# --- what goes up and comes down -------------------------------------------------------------------------------------
def test_steps_share_a_submit_and_upload_read_and_bind_nothing(
    make: Callable[..., Trial], gpu_device: Device, rare: None
):
    # Its own device, so that nothing else binds on it.
    trial = make(16 * 90, device=Device.of(Wgpu(Gpu(gpu_device.gpu.adapter))))
    counts = trial.learner.device.gpu.counts
    seen: list[Counts] = []
    trial.before = lambda session, number: seen.append(counts.copy())
    trial.fit(1)
    captured = trial.session.update
    assert isinstance(captured, Captured)
    steady = Counts(launches=TOGETHER * captured.steps[0].step.launches, submits=1)
    assert [after.since(before) for before, after in pairwise(seen[5::TOGETHER])] == [steady] * 21
    assert seen[1].reads - seen[0].reads == 2  # the first step was asked about: loss and accuracy
    assert seen[-1].reads == seen[1].reads
    trial.learner.device.gpu.destroy()


def test_an_epoch_uploads_nothing_and_reads_a_few_times(make: Callable[..., Trial], rare: None):
    trial = make(16 * 5)
    counts = trial.learner.device.gpu.counts
    trial.fit(1)
    saved = counts.reads
    trial.weights()
    state = counts.reads - saved
    reads = counts.reads
    uploads: list[int] = []
    trial.after = lambda session, number: uploads.append(counts.uploads)
    trial.fit(4, resume=True, samples=0)
    assert uploads[5:] == [uploads[5]] * 10  # the first evaluation is captured before that
    # In each epoch the first step or none, and the rest; the test set likewise; every checkpoint; the model at the end.
    model = len(trial.model.state())
    assert counts.reads - reads <= 3 * (2 * 2 + 2 * 2 + state) + model


def test_gathering_takes_two_launches(make: Callable[..., Trial]):
    launches: list[int] = []
    for keep in (None, False):
        trial = make(16, str(keep), keep)
        trial.fit(1)
        captured = trial.session.update
        assert isinstance(captured, Captured)
        (step,) = captured.steps
        launches.append(step.step.launches)
    assert launches[0] == launches[1] + 2


@pytest.mark.parametrize("count", [5, 64])
def test_a_captured_function_that_walks_along_a_tensor_binds_once(gpu_device: Device, count: int):
    whole = tensor(np.arange(640, dtype=np.int32), gpu_device)

    @capture
    def squared(part: Tensor) -> Tensor:
        return part * part

    def walk() -> None:
        for start in range(0, 640 - count, count):
            expected = np.arange(start, start + count, dtype=np.int32) ** 2
            np.testing.assert_array_equal(squared(whole[start : start + count]).numpy(), expected)

    gc.collect()  # what other tests left would come back to the pool in between
    walk()
    before = gpu_device.gpu.counts.bind_groups
    walk()
    assert gpu_device.gpu.counts.bind_groups == before


def test_data_larger_than_a_binding_are_uploaded_batch_by_batch(gpu_device: Device, monkeypatch: pytest.MonkeyPatch):
    loader = DataLoader(ArrayDataset(*drawn(20)), 8, shuffle=False, seed=0)
    assert gpu_device.largest == gpu_device.gpu.pool.largest >= 1 << 27
    monkeypatch.setattr(gpu_device.gpu.pool, "largest", 4 * 784 * 20 - 1)
    streamed = feed(loader, gpu_device)
    assert streamed.nbytes == 0 and "62,720 bytes, and a tensor of this device has 62,719 at most" in streamed.reason
    with pytest.raises(TrainingError, match="62,720 bytes"):
        feed(loader, gpu_device, keep=True)


# --- reads that do not wait ------------------------------------------------------------------------------------------
def test_a_late_read_has_the_elements_of_its_time(any_device: Device):
    x = tensor(np.arange(70.0), any_device)
    reads = [(x[k:] * k).numpy_later() for k in range(4)]
    reads += [tensor(values, any_device).numpy_later() for values in ([True, False], np.arange(6).reshape(2, 3), [])]
    found = [read.result() for read in reversed(reads)][::-1]
    for k in range(4):
        np.testing.assert_array_equal(found[k], np.arange(70, dtype=np.float32)[k:] * k)
    assert found[4].tolist() == [True, False] and found[4].dtype == bool
    assert found[5].tolist() == [[0, 1, 2], [3, 4, 5]] and found[6].shape == (0,)
    assert all(read.ready() for read in reads) and reads[0].result() is not None
    found[0][0] = 5.0  # its own memory


def test_a_late_read_of_state_is_not_overtaken_by_the_steps_after_it(gpu_device: Device):
    from wgpu_nn.tensor import Cell

    cell = Cell(tensor([0.0, 10.0], gpu_device))

    @capture(state=[cell])
    def step(by: Tensor) -> None:
        cell.value = cell.value + by

    one, reads = tensor(1.0, gpu_device), []
    for _ in range(5):
        step(one)
        reads.append(cell.value.numpy_later())
    for _ in range(50):
        step(one)
    assert [read.result().tolist() for read in reads] == [[k, 10 + k] for k in range(1, 6)]
    assert cell.value.tolist() == [55, 65]


def test_a_late_read_comes_by_asking(gpu_device: Device):
    read = tensor([3.0], gpu_device).numpy_later()
    while not read.ready():
        pass
    assert read.result().tolist() == [3.0]


def test_late_reads_use_their_buffers_again(gpu_device: Device):
    device = Device.of(Wgpu(Gpu(gpu_device.gpu.adapter)))
    x = tensor([3.0], device)
    for _ in range(20):
        x.numpy_later().result()
    free: dict[int, list[Any]] = device.gpu.stream._readback._free  # pyright: ignore[reportPrivateUsage]
    assert [len(buffers) for buffers in free.values()] == [1]
    device.gpu.stream.trim()
    assert not free and x.numpy_later().result().tolist() == [3.0]
    device.gpu.destroy()


def test_a_late_read_from_a_lost_device_is_an_error(gpu_device: Device):
    device = Device.of(Wgpu(Gpu(gpu_device.gpu.adapter)))
    x = tensor([3.0], device)
    early, late = x.numpy_later(), x.numpy_later()
    assert early.result().tolist() == [3.0]
    device.gpu.destroy()
    assert late.ready()
    with pytest.raises(DeviceError, match="read: the device was lost"):
        late.result()
    assert early.result().tolist() == [3.0]


def test_a_device_that_goes_while_memory_is_on_its_way_back_leaves_the_process_alive(gpu_device: Device):
    device = Device.of(Wgpu(Gpu(gpu_device.gpu.adapter)))
    tensor([3.0], device)
    device.gpu.stream.flush()  # its staging memory is mapped again by a callback
    device.gpu.destroy()
    with pytest.raises(DeviceError, match="the device was lost"):
        (tensor([3.0], device) + 1).numpy()
    device.gpu.destroy()


def test_a_value_of_a_captured_function_cannot_be_read_later_in_it(gpu_device: Device):
    @capture
    def peek(x: Tensor) -> Tensor:
        (x + 1).numpy_later()
        return x

    with pytest.raises(CaptureError, match="takes a value out of a captured function"):
        peek(tensor([1.0], gpu_device))
