"""A device that cannot be broken: memory that runs out, devices that are lost, many threads, many small tensors."""

from __future__ import annotations

import functools
import gc
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests.fuzz import nightly
from wgpu_nn import Device, Tensor, full, ones, tensor, zeros
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.errors import DeviceError, DeviceLostError, DeviceMismatchError, OutOfMemoryError
from wgpu_nn.gpu import Gpu, choose
from wgpu_nn.gpu import device as gpu_device_module
from wgpu_nn.nn import Linear, LinearConfig, MseLossConfig
from wgpu_nn.optim import Adam, AdamConfig
from wgpu_nn.train import capture

MIB = 1 << 20


@pytest.fixture
def own() -> Iterator[Device]:
    """A device of its own, which a test may break."""
    device = Device.of(Wgpu(Gpu(choose()[0])))
    yield device
    device.gpu.destroy()


# --- memory ------------------------------------------------------------------------------------------------------------
def test_memory_that_runs_out_is_an_error_and_work_goes_on_when_some_is_freed(own: Device) -> None:
    own.limit_memory(8 * MIB)
    held: list[Tensor] = []
    with pytest.raises(
        OutOfMemoryError,
        match=rf"allocate {MIB} bytes: expected at most {8 * MIB} bytes in all \(the device's memory limit\)",
    ):
        while True:
            held.append(full((MIB // 4,), float(len(held)), own))
    assert len(held) == 8, "what the limit allows is there to the last byte"
    assert [t[0].item() for t in held[:2]] == [0.0, 1.0], "and whole, though a read had no room to copy"
    del held[1:]
    assert (held[0] + 1.0).sum().item() == MIB // 4


def test_a_pool_of_other_sizes_is_emptied_before_memory_runs_out(own: Device) -> None:
    own.limit_memory(8 * MIB)
    small = [ones((1000 + 100 * k,), own) for k in range(150)]
    assert own.memory().live == 150
    del small
    assert own.memory().pooled_bytes > MIB
    assert ones((7 * MIB // 4,), own).sum().item() == 7 * MIB // 4
    assert own.memory().blocks <= 3


def test_garbage_in_cycles_is_collected_before_memory_runs_out(own: Device) -> None:
    own.limit_memory(4 * MIB)
    gc.collect()
    gc.disable()
    try:
        cycle: list[object] = [ones((3 * MIB // 4,), own)]
        cycle.append(cycle)
        del cycle
        assert ones((3 * MIB // 4,), own).max().item() == 1
    finally:
        gc.enable()


def test_memory_that_is_freed_in_pieces_serves_large_tensors_again(own: Device) -> None:
    own.limit_memory(16 * MIB)
    for turn in range(6):
        pieces = [zeros((4000 + 500 * turn,), own) for _ in range(300)]
        survivors = pieces[::7]
        del pieces
        large = full((2 * MIB,), float(turn), own)  # 8 MiB, twice what is free in any one size
        assert large.max().item() == turn and survivors[-1].max().item() == 0
        del large, survivors
    assert own.memory().live == 0 and own.memory().peak_bytes <= 16 * MIB


def test_memory_reports_what_is_live_pooled_and_was_at_most(own: Device) -> None:
    before = own.memory()
    assert before.live == before.live_bytes == before.peak_bytes == 0
    x, y = ones((MIB // 4,), own), ones((10,), own)
    both = own.memory()
    assert (both.live, both.live_bytes, both.pooled_bytes) == (2, MIB + 256, 0)
    del x
    after = own.memory()
    assert (after.live, after.live_bytes, after.pooled_bytes, after.peak_bytes) == (1, 256, MIB, MIB + 256)
    own.reset_peak_memory()
    assert own.memory().peak_bytes == 256 and y.sum().item() == 10
    assert own.memory().limit_bytes == own.gpu.memory_limit
    own.limit_memory(None)
    assert own.memory().limit_bytes is None
    with pytest.raises(DeviceError, match="limit_memory: expected 0 bytes or more"):
        own.limit_memory(-1)
    with pytest.raises(DeviceError, match="expected a wgpu device"):
        Device("numpy").memory()


def test_a_software_adapter_leaves_some_of_the_machines_memory_to_others(own: Device) -> None:
    limit = own.memory().limit_bytes
    assert limit is None or (own.gpu.software and limit > 100 * MIB)


def test_very_many_small_tensors_live_at_once(own: Device) -> None:
    count = 1_000_000 if nightly() else 5_000
    held = [full((3,), float(n), own) for n in range(count)]
    assert own.memory().live == count and own.memory().live_bytes == 256 * count
    assert [held[n].tolist() for n in (0, count // 2, count - 1)] == [
        [float(n)] * 3 for n in (0, count // 2, count - 1)
    ]
    held.clear()
    assert own.memory().live == 0
    own.gpu.stream.trim()
    assert own.memory().blocks == 0


def test_old_pipelines_make_room_and_captured_steps_keep_theirs(own: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_device_module, "MOST_PIPELINES", 8)
    step = capture(lambda x: (x * 2.0 + 1.0).sum())
    x = ones((5,), own)
    assert step(x).item() == 15
    for n in range(1, 40):
        assert capture(lambda x: (x + 1.0).sum())(ones((n,), own)).item() == 2 * n
    assert sum(1 for _ in own.gpu.compiled()) <= 8 + 4
    assert step(x).item() == 15 and (x.relu() + x).sum().item() == 10


# --- lost devices ------------------------------------------------------------------------------------------------------
def lose(device: Device) -> None:
    """Let the device go as a driver's reset does: without a word to the framework."""
    device.gpu.raw.destroy()


def eager(device: Device) -> Callable[[], object]:
    x = ones((1000,), device)
    return lambda: functools.reduce(lambda y, n: y * 0.5, range(100), x).numpy()


def captured(device: Device) -> Callable[[], object]:
    x, step = ones((1000,), device), capture(lambda x: (x * 2.0 + 1.0).sum())
    step(x).item()
    return lambda: step(x).item()


def readback(device: Device) -> Callable[[], object]:
    return (ones((1000,), device) * 3.0).numpy_later().result


def waited(device: Device) -> Callable[[], object]:
    later = (ones((1000,), device) * 3.0).numpy_later()
    device.sync()
    assert later.ready()
    return later.result


def upload(device: Device) -> Callable[[], object]:
    kept = [tensor(np.ones(1000, np.float32), device) for _ in range(50)]
    device.sync()
    del kept  # there are buffers and mapped chunks, so that nothing need be allocated
    return lambda: tensor(np.ones(1000, np.float32), device).numpy()


def synced(device: Device) -> Callable[[], object]:
    x = ones((1000,), device) + 1.0
    return lambda: (x.shape, device.sync())


@pytest.mark.parametrize("work", [eager, captured, readback, waited, upload, synced])
def test_a_device_lost_in_the_middle_is_an_error_until_it_is_reset(
    work: Callable[[Device], Callable[[], object]], own: Device
) -> None:
    rest = work(own)
    lose(own)
    for _ in range(2):
        with pytest.raises(
            DeviceLostError, match=r"the device was lost \(driver reset, or destroyed\); device.reset\(\)"
        ):
            rest()
    own.reset()
    assert (ones((3,), own) + 1.0).sum().item() == 6
    work(own)()


def test_tensors_from_before_a_reset_are_refused_wherever_they_come_in(own: Device) -> None:
    old, seen = tensor(np.arange(6, dtype=np.float32), own), ones((4,), own).expand(3, 4)
    later = old.numpy_later()
    step = capture(lambda x: x * 2.0 + 1.0)
    step(old)
    own.reset()
    new = ones((6,), own)
    for use in (
        old.numpy,
        old.numpy_later,
        lambda: old + 1.0,
        lambda: new + old,
        lambda: step(old),
        seen.numpy,
        lambda: new.slice_assign(((0, 1, 2),), old[:2]),
        later.result,
    ):
        with pytest.raises(DeviceLostError, match=r"before its reset|was lost"):
            use()
    with pytest.raises(DeviceLostError):
        own.gpu.stream.upload(old.root.buffer, np.ones(6, np.float32))
    assert (new * 2.0).sum().item() == 12 and step(new).sum().item() == 18


def training(device: Device) -> tuple[Linear, Adam, Callable[[Tensor, Tensor], Tensor]]:
    model, optimizer = LinearConfig(3, 2).init(device.autodiff()), AdamConfig(lr=0.1).init()
    loss = MseLossConfig().init()

    @capture(state=[model, optimizer])
    def step(x: Tensor, y: Tensor) -> Tensor:
        cost = loss.forward(model.forward(x), y)
        optimizer.step(model, cost.backward())
        return cost

    return model, optimizer, step


def test_a_captured_training_goes_on_after_a_reset_and_a_reload_as_if_nothing_had_been(own: Device) -> None:
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal((4, n)).astype(np.float32) for n in (3, 2)]

    def batch() -> list[Tensor]:
        return [tensor(a, own.autodiff()) for a in arrays]

    model, optimizer, step = training(own)
    for _ in range(3):
        step(*batch())
    host = Device("numpy")
    weights = {name: t.to(host) for name, t in model.state().items()}
    moments, steps = {name: t.to(host) for name, t in optimizer.state().items()}, optimizer.steps
    expected = [step(*batch()).item() for _ in range(3)]

    lose(own)
    with pytest.raises(DeviceLostError):
        step(*batch()).item()
    own.reset()
    with pytest.raises(DeviceLostError):  # nothing was loaded yet
        step(*batch()).item()
    model.load_state(weights)
    optimizer.load_state(model, moments, steps)
    assert [step(*batch()).item() for _ in range(3)] == expected


def test_a_device_that_is_reset_gives_back_all_of_its_memory(own: Device) -> None:
    held = [ones((1000,), own) for _ in range(10)]
    pipelines = own.gpu.counts.pipelines
    own.reset()
    assert own.memory().blocks == own.memory().live == 0
    del held  # their leases end in the pool that is gone
    assert own.memory().blocks == own.memory().live == 0
    assert ones((1000,), own).sum().item() == 1000 and own.gpu.counts.pipelines > pipelines


# --- threads and devices -----------------------------------------------------------------------------------------------
def test_64_threads_share_a_device(own: Device) -> None:
    errors: list[BaseException] = []
    together = threading.Barrier(64)
    step = capture(lambda x: (x * 2.0 + 1.0).sum())

    def work(seed: int) -> None:
        try:
            a = np.random.default_rng(seed).standard_normal((3 + seed % 5, 4)).astype(np.float32)
            together.wait(60)
            for turn in range(4):
                x = tensor(a, own)
                got = ((x @ x.t()).relu() + float(turn)).sum(1)
                later = (x * 3.0).numpy_later()
                np.testing.assert_allclose(got.numpy(), (np.maximum(a @ a.T, 0) + turn).sum(1), 1e-4, 1e-4)
                np.testing.assert_allclose(later.result(), a * np.float32(3))
                np.testing.assert_allclose(step(x).item(), a.sum() * 2 + a.size, 1e-4, 1e-4)
                if seed % 16 == 0:
                    own.gpu.stream.trim()
                    own.memory()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(64)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors[:3]
    gc.collect()
    own.sync()
    step.steps.clear()
    assert own.memory().live <= 16, "what 64 threads leased came back"


def test_several_devices_of_a_process_work_side_by_side_and_do_not_mix(own: Device, gpu_device: Device) -> None:
    other = Device.of(Wgpu(Gpu(choose()[0])))
    devices = [own, other, gpu_device]
    found = [ones((100,), d) for d in devices]
    for _ in range(20):
        found = [x + float(n) for n, x in enumerate(found)]
    assert [x.sum().item() for x in found] == [100.0, 2100.0, 4100.0]
    with pytest.raises(DeviceMismatchError):
        _ = found[0] + found[1]
    assert (found[0].to(other) + found[1]).sum().item() == 2200
    other.gpu.destroy()
    with pytest.raises(DeviceLostError):
        found[1].numpy()
    assert found[0].sum().item() == 100, "one that is lost is no loss to the others"
