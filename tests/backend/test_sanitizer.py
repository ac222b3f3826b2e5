"""Devices that watch their own kernels: bugs that were planted are found and named, clean steps give no reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from wgpu_nn import Device, Tensor, full, ones, switches, tensor, zeros
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.dtype import F32
from wgpu_nn.errors import ConfigError, DeviceError, SanitizerError
from wgpu_nn.gpu import Gpu, Kernel, Profile
from wgpu_nn.nn import CrossEntropyLossConfig, LinearConfig
from wgpu_nn.optim import AdamConfig
from wgpu_nn.tensor import Cell
from wgpu_nn.train import capture

MODES = ("nan", "inf", "bounds", "race", "unwritten")
HEAD = """@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3u) {
"""
CLEAN = "if (id.x < 10u) { out[id.x] = x[id.x] * 2.0; }"
PLANTED = {
    "out of bounds read": (
        "bounds",
        "if (id.x < 10u) { out[id.x] = x[id.x + 1u]; }",
        r"x\[id.x \+ 1u\]: read at index 10",
    ),
    "out of bounds write": ("bounds", "out[id.x] = 1.0;", r"out\[id.x\]: write at index 10, of 10 elements"),
    "race": ("race", "if (id.x % 4u == 0u) { out[0] = f32(id.x); }", "1 words of out that differ backwards"),
    "nan": ("nan", "if (id.x < 10u) { out[id.x] = log(x[id.x] - 3.0); }", "3 NaN in out, the first at element 0"),
    "infinity": ("inf", "if (id.x < 10u) { out[id.x] = exp(1000.0 * x[id.x]); }", "9 in out, the first at element 1"),
}


@pytest.fixture(params=MODES)
def watched(request: pytest.FixtureRequest) -> Device:
    return Device(debug=request.param)


def five_kernels(gpu: Gpu, name: str, third: str, zeroed: bool = True, eager: bool = False) -> np.ndarray:
    """Launch five kernels, of which the third is given, on ten elements each; return what the last wrote."""
    buffers = [gpu.pool.lease(40) for _ in range(6)]
    gpu.stream.upload(buffers[0], np.arange(10, dtype=np.float32))
    for b in buffers[1:] if zeroed else []:
        gpu.stream.upload(b, np.zeros(10, np.float32))
    for n in range(5):
        # The third starts from small numbers.
        body = third if n == 2 else CLEAN if n > 2 else CLEAN.replace("2.0", "1.0")
        kernel = Kernel(f"{name} {n + 1}", f"{HEAD}{body}\n}}\n", "rw", eager, f"{name}.wgsl")
        gpu.stream.launch(kernel, buffers[n : n + 2], (3, 1, 1))
    return np.frombuffer(gpu.stream.read(buffers[5], 0, 40), np.float32)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found_in_the_third_of_five_kernels(name: str) -> None:
    mode, body, message = PLANTED[name]
    with pytest.raises(SanitizerError, match=message) as caught:
        five_kernels(Device(debug=mode).gpu, name, body)
    assert f"kernel {name} 3 on 3 x 1 x 1 workgroups (x 40 bytes, out 40 bytes)" in str(caught.value)


def test_what_no_kernel_wrote_is_found_by_who_reads_it() -> None:
    some = "if (id.x < 10u && id.x != 7u) { out[id.x] = x[id.x]; }"
    with pytest.raises(SanitizerError, match="got 1 words of x that nothing has, the first at word 7") as caught:
        five_kernels(Device(debug="unwritten").gpu, "partly", some, zeroed=False, eager=True)
    assert "kernel partly 4 on 3 x 1 x 1 workgroups (x 40 bytes, out 40 bytes)" in str(caught.value)
    backend = Device(debug="unwritten").backend
    assert isinstance(backend, Wgpu)
    with pytest.raises(
        SanitizerError, match="read: expected what something has written, got 10 words that nothing has"
    ):
        backend.download(backend.empty((10,), F32))


@pytest.mark.parametrize("halves", [True, False])
def test_vectors_of_halves_that_are_not_full_are_no_reach_out_of_bounds(halves: bool, gpu_device: Device) -> None:
    backend = Device(debug="bounds").backend
    assert isinstance(backend, Wgpu)
    halves = halves and "shader-f16" in gpu_device.gpu.features
    device = Device.of(Wgpu(backend.gpu, replace(backend.target, halves=halves)))
    for count in (1, 2, 5, 7):
        x = tensor(np.arange(count, dtype=np.float16), device)
        np.testing.assert_array_equal((x + x).numpy(), 2 * np.arange(count))


def test_a_kernel_outside_of_ops_is_no_ops() -> None:
    device = Device(debug="bounds")
    full([3], 1.0, device=device).sum()
    with pytest.raises(SanitizerError, match="kernel alone 3 on 3 x 1 x 1 workgroups"):
        five_kernels(device.gpu, "alone", "out[id.x] = 1.0;")


def test_clean_kernels_give_no_report_and_the_same_results(watched: Device) -> None:
    found = five_kernels(watched.gpu, "clean", CLEAN)
    np.testing.assert_array_equal(found, np.arange(10) * 8)


def steps(device: Device) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]:
    """Return a training step, eager and captured, of a network of two layers."""
    device.seed(0)
    first, second = (LinearConfig(*sizes).init(device.autodiff()) for sizes in ((5, 7), (7, 3)))
    one, two, loss = AdamConfig(lr=1e-2).init(), AdamConfig(lr=1e-2).init(), CrossEntropyLossConfig().init()

    def step(x: Tensor, y: Tensor) -> Tensor:
        cost = loss.forward(second.forward(first.forward(x).tanh()), y)
        gradients = cost.backward()
        one.step(first, gradients)
        two.step(second, gradients)
        return cost

    return step, capture(state=[first, second, one, two])(step)


def data(device: Device, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    x = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32) * np.float32(scale)
    return tensor(x, device.autodiff()), tensor(np.arange(6, dtype=np.int32) % 3, device.autodiff())


def test_whole_training_steps_give_no_report(watched: Device, gpu_device: Device) -> None:
    plain = [f(*data(gpu_device)).numpy() for f in steps(gpu_device) for _ in range(2)]
    found = [f(*data(watched)).numpy() for f in steps(watched) for _ in range(2)]
    np.testing.assert_allclose(found, plain, rtol=1e-5)
    assert watched.gpu.sanitizer is not None and not watched.gpu.sanitizer.unwatched


def test_the_gaps_between_states_of_a_step_hold_no_garbage() -> None:
    device = Device(debug="nan")
    filled = [full([n], -1.0, device=device) for n in (32, 64, 128, 256) for _ in range(4)]  # a root of which is NaN
    device.sync()
    del filled
    captured = steps(device)[1]
    for _ in range(2):
        captured(*data(device))


def test_the_first_nan_of_a_step_is_named_with_its_op_and_where_it_came_from() -> None:
    device = Device(debug="nan")
    x, _ = data(device)

    def bad(x: Tensor) -> Tensor:
        big = (x * 1e30) * (x * 1e30)  # infinity, unless x is small
        return (big - big).sum()  # and so NaN

    with pytest.raises(SanitizerError) as caught:
        bad(x)
    text = str(caught.value)
    assert "for sub of f32[6, 5], f32[6, 5] -> f32[6, 5]" in text and "NaN in out, the first at element 0" in text
    assert "the first infinity came from kernel map x * y" in text and "for mul of f32[6, 5], f32[6, 5]" in text

    @capture(state=[])
    def captured(x: Tensor) -> Tensor:
        return (x - 100.0).log().sum()

    with pytest.raises(
        SanitizerError, match=r"for sub and log and sum -> f32\[\], at .*test_sanitizer.py:\d+ .* 1 NaN"
    ):
        captured(x)
    assert float(x.sum().numpy()) == pytest.approx(float(np.sum(x.numpy())), rel=1e-5)  # work goes on


def test_numbers_that_are_not_finite_on_purpose_are_no_bugs() -> None:
    device = Device(debug="inf")
    x = tensor(np.array([1, np.inf, np.nan], np.float32), device)
    np.testing.assert_array_equal((x * 2).numpy(), [2, np.inf, np.nan])  # given, not made
    assert np.isinf(full([3], -np.inf, device=device).numpy()).all()


def test_a_device_that_is_not_told_follows_the_switch(gpu_device: Device) -> None:
    with switches.debug.set("bounds"):
        assert Device().gpu.sanitizer is not None and Device() == Device(debug="bounds")
        assert Device(debug="off").gpu.sanitizer is None
    with pytest.raises(ConfigError, match=r"debug: expected off .* got 'bonds'"):
        Device(debug="bonds")
    with pytest.raises(DeviceError, match="expected a GPU for debug='nan', got 'numpy'"):
        Device("numpy", debug="nan")


def test_a_profile_gives_the_watch_back() -> None:
    device = Device(debug="bounds")
    if "timestamp-query" not in device.gpu.features:
        pytest.skip("no timestamps")
    with Profile(device.gpu) as profile:
        five_kernels(device.gpu, "profiled", CLEAN)
    assert len(profile.launched) == 5
    with pytest.raises(SanitizerError):
        five_kernels(device.gpu, "watched again", "out[id.x] = 1.0;")


def test_a_kernel_that_leaves_no_buffer_for_the_check_runs_and_is_named() -> None:
    device = Device(debug="bounds")
    gpu = device.gpu
    before = gpu.limits["max-storage-buffers-per-shader-stage"]
    gpu.limits["max-storage-buffers-per-shader-stage"] = 2
    try:
        np.testing.assert_array_equal(five_kernels(gpu, "full", CLEAN), np.arange(10) * 8)
    finally:
        gpu.limits["max-storage-buffers-per-shader-stage"] = before
    assert gpu.sanitizer is not None and gpu.sanitizer.unwatched == {f"full {n}" for n in range(1, 6)}


def test_watching_holds_no_memory() -> None:
    device = Device(debug="bounds")
    x = tensor(np.ones(1000, np.float32), device)
    for _ in range(3):
        x = x * 1.0
    before = device.gpu.pool.stats()
    for _ in range(20):
        x = x * 1.0
    after = device.gpu.pool.stats()
    assert (after.live_bytes, after.blocks) == (before.live_bytes, before.blocks)


def test_what_lies_behind_an_odd_number_of_halves_is_no_race() -> None:
    device = Device(debug="race")
    mean, weight = Cell(zeros([5], device)), Cell(ones([5], device).half())

    @capture(state=[mean, weight])
    def step() -> None:
        mean.value = mean.value * 0.5 + 1.0
        weight.value = (weight.value.float() - mean.value).half()

    for _ in range(3):
        step()
    np.testing.assert_array_equal(weight.value.numpy(), np.full(5, 1.0 - 1.0 - 1.5 - 1.75))
