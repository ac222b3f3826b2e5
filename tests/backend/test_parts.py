"""Tensors beyond what a kernel may see of a buffer at once: ops are done in parts, or say which limit stands in the way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.case import i32
from wgpu_nn import Device, Tensor, arange, cat, full, rand, tensor
from wgpu_nn.dtype import float16
from wgpu_nn.errors import DeviceLimitError
from wgpu_nn.train import capture

LIMIT = 1 << 16  # bytes: 16,384 elements
BINDING = "max-storage-buffer-binding-size"


@pytest.fixture(scope="module")
def low() -> Device:
    """A device whose kernels see little of a buffer, with as little to it as WebGPU grants of the rest."""
    return Device(limits={BINDING: LIMIT, "min-storage-buffer-offset-alignment": 256})


def numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.uniform(-1, 1, shape).astype(np.float32)


Fn = Callable[[Tensor], Tensor]
# Each takes [37, 1009], which is 2.3 times what can be seen: neither rows nor halves are multiples of an alignment.
ONE: dict[str, Fn] = {
    "map": lambda x: x.exp() + 1.0,
    "of a transposed": lambda x: x.transpose() * 2.0,
    "of a column and a row": lambda x: x + x[:, :1] * x[:1],
    "of a slice": lambda x: x[30:, ::-1] * 2.0,
    "compared": lambda x: (x > 0.0).float(),
    "reversed": lambda x: x[::-1, ::-1] - 1.0,
    "reshaped": lambda x: x.transpose().reshape([-1]),
    "broadcast": lambda x: x[:1].expand([50, 1009]) * 1.0,
    "sum": lambda x: x.sum(),
    "sum of rows": lambda x: x.sum(1),
    "sum of columns": lambda x: x.sum(0, keepdim=True),
    "sum of a transposed": lambda x: x.transpose().sum(0),
    "mean": lambda x: x.mean(),
    "max of columns": lambda x: x.max(0),
    "prod": lambda x: (x * 0.001 + 1.0).prod(1),
    "any": lambda x: (x > 0.999).any(0).float(),
    "argmax": lambda x: x.reshape([-1]).argmax(0).float(),
    "argmin of columns": lambda x: x.argmin(0).float(),
    "argmax of rows": lambda x: x.argmax(1).float(),
    "logsumexp": lambda x: x.logsumexp(),
    "variances of columns": lambda x: (x + 5.0).var(0),
    "variance": lambda x: (x + 5.0).var(),
    "softmax": lambda x: x.softmax(1),
    "softmax of all": lambda x: x.reshape([-1]).softmax(0) * 1000.0,
    "log-softmax of columns": lambda x: x.log_softmax(0),
    "running sum": lambda x: x.cumsum(1),
    "sorted rows": lambda x: x.sort(1)[0],
    "matmul": lambda x: x @ x.transpose(),
    "matmul of columns": lambda x: x[:5].transpose() @ x[:5, :400],
    "two together": lambda x: cat([x, x * 2.0], 0),
    "set": lambda x: x.set((slice(3, 30), slice(7, 700)), x[3:30, 7:700] * 2.0),
}  # fmt: skip


@pytest.mark.parametrize("way", ["eager", "captured", "without fusion"])
@pytest.mark.parametrize("name", ONE)
def test_an_op_on_more_than_can_be_seen_is_done_in_parts(
    name: str, way: str, low: Device, exact: Device, rng: np.random.Generator
) -> None:
    given = numbers(rng, 37, 1009)
    fn = ONE[name]
    run = fn if way == "eager" else capture(fuse=way == "captured")(lambda x: fn(x))
    got = run(tensor(given, low))
    # Sums of up to 37,333 numbers below 1: their rounding errors grow as the root of that, 2e-5 for the largest.
    np.testing.assert_allclose(got.numpy(), fn(tensor(given, exact)).numpy(), 1e-5, 5e-5)


def test_sources_know_the_place_of_each_element_in_all_of_the_tensor(low: Device, cpu: Device) -> None:
    n = 3 * LIMIT // 4 + 7
    np.testing.assert_array_equal(arange(n, device=low).numpy(), np.arange(n))
    assert full([n], 2.5, device=low).numpy().min() == 2.5
    for device in (low, cpu):
        device.seed(3)
    np.testing.assert_array_equal(rand([n], device=low).numpy(), rand([n], device=cpu).numpy())


@pytest.mark.unwatched("reads NaN beyond an axis", "nan", "inf")
@pytest.mark.parametrize("axis", [0, 1])
def test_a_gather_reads_each_part_of_its_source(axis: int, low: Device, rng: np.random.Generator) -> None:
    x = numbers(rng, 1009, 64)
    index = rng.integers(-x.shape[axis], x.shape[axis], (700, 64) if axis == 0 else (1009, 40)).astype(np.int32)
    got = tensor(x, low).gather(axis, tensor(index, low)).numpy()
    np.testing.assert_array_equal(got, np.take_along_axis(x, np.where(index < 0, index + x.shape[axis], index), axis))
    rows = tensor(x, low).index_select(0, tensor(i32([1008, 0, 3, -1, 5000]), low)).numpy()
    np.testing.assert_array_equal(rows[:4], x[[1008, 0, 3, -1]])
    assert np.isnan(rows[4]).all()


def test_routines_are_cut_along_what_they_compute_apart(low: Device, exact: Device, rng: np.random.Generator) -> None:
    x, w, b = numbers(rng, 40, 4, 15, 17), numbers(rng, 6, 4, 3, 3), numbers(rng, 6)
    rows, weight = numbers(rng, 50, 700), numbers(rng, 700)
    window = {"stride": (1, 1), "padding": ((1, 1), (0, 1)), "dilation": (1, 1), "groups": 1}
    index = rng.integers(0, 90, (300, 1)).astype(np.int32)

    def all_of(device: Device) -> list[np.ndarray]:
        image, kernel, bias = (tensor(v, device) for v in (x, w, b))
        out = image.run("conv2d", image, kernel, bias, **window)
        pooled = image.run(
            "avg_pool2d", image, kernel=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0)), include_pad=True
        )
        back = image.run("conv2d_input_grad", out, kernel, shape=x.shape, **window)
        lines, scale = tensor(rows, device), tensor(weight, device)
        normed = lines.run("layer_norm", lines, scale, scale, epsilon=1e-5)
        sent = tensor(np.zeros((90, 80), np.float32), device).scatter_add(
            0, tensor(index, device).expand([300, 80]), tensor(np.resize(rows, (300, 80)), device)
        )
        return [v.numpy() for v in (out, pooled, back, normed, sent)]

    for got, want in zip(all_of(low), all_of(exact), strict=True):
        np.testing.assert_allclose(got, want, 1e-4, 1e-4)


def test_what_cannot_be_cut_names_the_limit_and_launches_nothing(low: Device, rng: np.random.Generator) -> None:
    x, g = tensor(numbers(rng, 2, 8, 64, 64), low), tensor(numbers(rng, 2, 1, 62, 62), low)
    low.sync()
    before = low.gpu.counts.copy()
    window = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    with pytest.raises(DeviceLimitError, match=f"conv2d_weight_grad: .* {LIMIT} bytes .*{BINDING}.* got {x.size * 4}"):
        x.run("conv2d_weight_grad", x, g, shape=(1, 8, 3, 3), **window)
    low.sync()
    assert low.gpu.counts.since(before).launches == 0
    assert (x.sum() * 0).item() == 0, "and the device works on"


def test_a_buffer_beyond_the_device_names_the_limit_and_the_way_out() -> None:
    device = Device(limits={"max-buffer-size": 1 << 20, BINDING: 1 << 18})
    with pytest.raises(
        DeviceLimitError, match=r"at most 1048576 bytes \(max-buffer-size.*got 1048580; split the tensor"
    ):
        full([(1 << 18) + 1], 1.0, device=device)
    assert full([1 << 18], 1.0, device=device).sum().item() == 1 << 18


def test_a_training_step_on_large_tensors_equals_one_in_float64(
    low: Device, exact: Device, rng: np.random.Generator
) -> None:
    from wgpu_nn.nn import LinearConfig, MseLossConfig
    from wgpu_nn.optim import AdamConfig

    x, y = numbers(rng, 70, 300), numbers(rng, 70, 500)
    first = LinearConfig(300, 500).init(exact)

    def losses(device: Device) -> list[float]:
        layer = first.to_device(device.autodiff())  # of 600 KB
        optimizer, loss = AdamConfig(lr=1e-2).init(), MseLossConfig().init()

        @capture(state=[layer, optimizer])
        def step(x: Tensor, y: Tensor) -> Tensor:
            cost = loss.forward(layer.forward(x).tanh(), y)
            optimizer.step(layer, cost.backward())
            return cost.inner()

        given = [tensor(v, device.autodiff()) for v in (x, y)]
        return [step(*given).item() for _ in range(4)]

    np.testing.assert_allclose(losses(low), losses(exact), 1e-4)


@pytest.mark.parametrize("name", ["map", "of a transposed", "sum of columns", "variance", "argmax of rows", "softmax"])
def test_halves_are_done_in_parts_as_well(name: str, low: Device, exact: Device, rng: np.random.Generator) -> None:
    given = rng.uniform(-1, 1, (37, 2011)).astype(np.float16)
    got = ONE[name](tensor(given, Device.of(low.backend, float_dtype=float16)))
    want = ONE[name](tensor(given.astype(np.float64), exact)).numpy()
    np.testing.assert_allclose(got.numpy().astype(np.float64), want, 1e-3, 1e-3)  # half a unit of halves is 5e-4
