"""Beyond the limits that bite: 65,535 workgroups a dimension, and llvmpipe's 65,535 turns of a loop."""

from __future__ import annotations

import numpy as np
import pytest

from wgpu_nn import Device, arange, full, ones, rand, tensor, zeros
from wgpu_nn.errors import DeviceLimitError

GROUPS = 65_535
LONG = 70_001  # more than the turns that llvmpipe's loops have, and a prime


@pytest.fixture(params=["software", "gpu"])
def device(request: pytest.FixtureRequest, gpu_variants: dict[str, Device]) -> Device:
    return gpu_variants[request.param]


@pytest.fixture(params=["software", "gpu"])
def unbounded(request: pytest.FixtureRequest, gpu_device: Device, gpu_variants: dict[str, Device]) -> Device:
    """A device whose long serial loops are not cut: a GPU's kernels have some, which a software adapter would cut."""
    if request.param == "gpu" and gpu_device.gpu.software:
        return gpu_device
    return gpu_variants[request.param]


@pytest.fixture
def row(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(LONG).astype(np.float32)


def test_a_map_over_more_elements_than_one_dimension_has_workgroups(gpu_device: Device) -> None:
    n = GROUPS * 64 * 4 + 5  # with four elements an invocation
    x = arange(n, device=gpu_device)
    assert (x + 1)[-3:].tolist() == [n - 2, n - 1, n]
    strided = x[::2] * 2  # one element an invocation
    assert strided.shape == ((n + 1) // 2,)
    assert int(strided[-1].item()) == 2 * (n - 1)
    assert int((strided == arange(0, 2 * n, 4, device=gpu_device)).int().min().item()) == 1


def test_a_map_of_single_elements_over_two_dimensions_of_workgroups(gpu_device: Device) -> None:
    n = GROUPS * 64 + 7
    x = arange(n, device=gpu_device).flip() + 0
    assert x[:3].tolist() == [n - 1, n - 2, n - 3] and x[-2:].tolist() == [1, 0]


def test_a_reduction_with_more_outputs_than_one_dimension_has_workgroups(device: Device) -> None:
    n = GROUPS * 64 + 3 if device.root.target.software else GROUPS + 3  # pyright: ignore[reportAttributeAccessIssue]
    x = arange(n, device=device).reshape(n, 1).expand(n, 2)
    out = x.sum(1)
    assert out[-2:].tolist() == [2 * (n - 2), 2 * (n - 1)]
    assert out.argmax().item() == n - 1
    wide = x[: GROUPS + 3].reshape(GROUPS + 3, 1, 2).expand(GROUPS + 3, 64, 2).reshape(GROUPS + 3, 128) + 0
    assert wide.sum(1)[-1].item() == 128 * (GROUPS + 2)


def test_a_matmul_with_more_batches_than_one_dimension_has_workgroups(device: Device) -> None:
    n = GROUPS + 3 if not device.root.target.software else GROUPS * 32 + 3  # pyright: ignore[reportAttributeAccessIssue]
    x = arange(n, device=device).float().reshape(n, 1, 1)
    out = x.matmul(tensor([[2.0]], device))
    assert out[-1].item() == np.float32(2 * (n - 1)) and out.sum().item() == pytest.approx(n * (n - 1), rel=1e-4)


def test_softmax_rows_beyond_one_dimension_of_workgroups(gpu_variants: dict[str, Device]) -> None:
    device = gpu_variants["gpu"]
    out = zeros((GROUPS + 2, 64), device).softmax(1)
    np.testing.assert_array_equal(out[-2:].numpy(), np.full((2, 64), 1 / 64, np.float32))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("op", ["sum", "mean", "max", "min", "prod", "argmax", "argmin"])
def test_a_reduction_longer_than_llvmpipes_loops(op: str, axis: int, unbounded: Device, row: np.ndarray) -> None:
    if op == "prod":
        row = 1 + row * np.float32(1e-4)
    x = np.stack([row, row[::-1], -np.abs(row)], axis=1 - axis)
    want = {"argmax": np.argmax, "argmin": np.argmin}.get(op, getattr(np, op))(x.astype(np.float64), axis=axis)
    got = getattr(tensor(x, unbounded), op)(axis).numpy()
    # Products of numbers near 1 drift by a rounding each: 70,001 6e-8 at worst. Sums are below 1e3, with 1e4 roundings.
    np.testing.assert_allclose(got, want, rtol=1e-3 if op == "prod" else 1e-4, atol=5e-3 if op == "sum" else 1e-5)


@pytest.mark.parametrize("place", [0, 32767, 32768, 65535, 65536, LONG - 1])
def test_an_extreme_is_found_wherever_it_lies_in_a_long_row(place: int, device: Device) -> None:
    x = np.zeros(LONG, np.float32)
    x[place] = 1.0
    assert tensor(x, device).argmax().item() == place
    assert tensor(-x, device).argmin().item() == place
    assert tensor(x.astype(np.int32), device).argmax().item() == place
    x[[place, -1]] = np.nan
    assert tensor(x, device).argmax().item() == place
    assert bool((tensor(x, device) == 0.0).all().item()) is False


def test_many_elements_folded_at_once(gpu_device: Device) -> None:
    n = 5_000_011
    assert ones((n,), gpu_device).sum().item() == n
    assert full((n,), 1, gpu_device).sum().item() == n
    assert rand((n,), gpu_device).mean().item() == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("op", ["softmax", "log_softmax"])
def test_a_softmax_longer_than_llvmpipes_loops(op: str, device: Device, row: np.ndarray) -> None:
    x = row.astype(np.float64)
    want = x - x.max() - np.log(np.exp(x - x.max()).sum())
    got = getattr(tensor(row, device), op)(0).numpy()
    np.testing.assert_allclose(got, np.exp(want) if op == "softmax" else want, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("layout", ["plain", "transposed", "both"])
def test_a_matmul_whose_inner_axis_is_longer_than_llvmpipes_loops(
    layout: str, device: Device, rng: np.random.Generator
) -> None:
    inner = LONG + 3 if layout == "both" else LONG  # a multiple of 4, for the variant of dot products
    x, y = rng.random((3, inner), dtype=np.float32), rng.random((inner, 5), dtype=np.float32)
    a = tensor(x.T.copy(), device).t() if layout == "transposed" else tensor(x, device)
    b = tensor(y.T.copy(), device).t() if layout == "both" else tensor(y, device)
    np.testing.assert_allclose((a @ b).numpy(), x.astype(np.float64) @ y.astype(np.float64), rtol=1e-4)


def test_a_scatter_with_more_senders_than_llvmpipes_loops_have_turns(unbounded: Device, row: np.ndarray) -> None:
    index = (np.arange(LONG) % 3).astype(np.int32)
    want = np.bincount(index, row.astype(np.float64), 3)
    device = unbounded
    out = zeros((3,), device).scatter_add(0, tensor(index, device), tensor(row, device))
    np.testing.assert_allclose(out.numpy(), want, atol=2e-2)
    ints = zeros((3,), device, tensor([1]).kind).scatter_add(0, tensor(index, device), full((LONG,), 1, device))
    assert ints.tolist() == np.bincount(index).tolist()


def test_a_gather_of_many_elements(device: Device, row: np.ndarray) -> None:
    index = np.arange(LONG)[::-1].copy()
    np.testing.assert_array_equal(tensor(row, device).gather(0, tensor(index, device)).numpy(), row[::-1])


@pytest.mark.parametrize("op", ["avg_pool2d", "max_pool2d", "adaptive_avg_pool2d"])
def test_a_window_beyond_llvmpipes_loops_is_refused_or_right(op: str, gpu_device: Device) -> None:
    x = ones((1, 1, 300, 301), gpu_device)
    if op == "adaptive_avg_pool2d":
        assert x.run(op, x, size=(1, 1)).item() == pytest.approx(1.0, rel=1e-5)
        return
    window = {"kernel": (300, 301), "stride": (1, 1), "padding": ((0, 0), (0, 0))}
    more = {"include_pad": True} if op == "avg_pool2d" else {}
    try:
        found = x.run(op, x, **window, **more).item()
    except DeviceLimitError as error:
        assert op in str(error) and gpu_device.gpu.software
    else:
        assert found == pytest.approx(1.0, rel=1e-5)


def test_a_convolution_over_many_pixels_channels_and_rows(gpu_device: Device, rng: np.random.Generator) -> None:
    from wgpu_nn.nn import Conv2dConfig

    # 70,000 images of one row each: the weight gradient's sum is longer than a loop may be.
    x = rng.standard_normal((LONG, 1, 2, 3)).astype(np.float32)
    device = gpu_device.autodiff()
    layer = Conv2dConfig([1, 2], [2, 2]).with_bias(False).init(device)
    out = layer.forward(tensor(x, device))
    grad = out.sum().backward()[layer.weight.value].numpy()
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (2, 2), axis=(2, 3))
    np.testing.assert_allclose(grad[0, 0], windows.sum(axis=(0, 1, 2, 3)), rtol=1e-3, atol=0.05)
    np.testing.assert_allclose(
        out.numpy()[-3:, :, 0],
        np.einsum("nyxij,oij->nox", windows[-3:, 0], layer.weight.value.numpy()[:, 0]),
        atol=1e-5,
    )


def test_an_input_gradient_of_more_workgroups_than_one_dimension_has(device: Device, exact: Device) -> None:
    # One channel of 64 x 65 x 1013 voxels, 64 an invocation's workgroup on a software adapter: 65,845 workgroups.
    shape, window = (1, 1, 64, 65, 1013), {"stride": (2, 2, 2), "dilation": (1, 1, 1), "groups": 1}
    window["padding"] = ((0, 0), (0, 0), (0, 0))
    g = np.random.default_rng(0).standard_normal((1, 1, 32, 32, 506)).astype(np.float32)
    w = np.random.default_rng(1).standard_normal((1, 1, 2, 3, 3)).astype(np.float32)
    found: list[np.ndarray] = []
    for d in (device, exact):
        x = tensor(g, d)
        found.append(x.run("conv3d_input_grad", x, tensor(w, d), shape=shape, **window).numpy())
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("groups", [1, 3], ids=["full", "depthwise"])
def test_a_convolution_along_one_long_row_and_its_gradients(
    groups: int, device: Device, exact: Device, rng: np.random.Generator
) -> None:
    from wgpu_nn.nn import Conv1dConfig

    x = rng.standard_normal((1, 3, LONG)).astype(np.float32)
    found: list[list[np.ndarray]] = []
    for d in (device, exact):
        d.seed(0)
        above = d.autodiff()
        layer = Conv1dConfig([3, 3], 5, groups=groups, padding="same").init(above)
        start = np.linspace(-1, 1, layer.weight.tensor.size).reshape(layer.weight.shape)
        layer.weight.value = tensor(start, above).require_grad()
        leaf = tensor(x, above).require_grad()
        out = layer.forward(leaf)
        grads = (out * out).sum().backward()
        found.append([grads[leaf].numpy(), grads[layer.weight.value].numpy()])
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-4)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4, atol=0.5)  # sums of 70,001 squares
