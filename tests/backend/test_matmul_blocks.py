"""Block products: every shape of block in every layout, through the planner, on the kernels of GPUs."""

from __future__ import annotations

import numpy as np
import pytest

from wgpu_nn import Device, tensor
from wgpu_nn.kernels import product
from wgpu_nn.kernels.block import BROAD, LARGE, MIDDLE, SMALL, Block, choose_block
from wgpu_nn.kernels.plan import Target
from wgpu_nn.tensor import Tensor
from wgpu_nn.train import capture

# The chosen ones take a second each to compile on llvmpipe, so that the small ones go through more.
BLOCKS = [(4, 8, 1, 2, 8), (*SMALL, 16)]
CHOSEN = [(*LARGE, 16), (*BROAD, 16), (*MIDDLE, 8)]
LAYOUTS = [("plain", "plain"), ("plain", "turned"), ("turned", "plain"), ("sliced", "sliced")]
# Inner, edges that no block divides, whole blocks, one element, and slices of the inner axis.
SHAPES = [(1, 1, 1), (65, 130, 18), (128, 256, 64), (7, 257, 33), (129, 64, 8)]


@pytest.fixture
def device(
    request: pytest.FixtureRequest, fresh_variants: dict[str, Device], monkeypatch: pytest.MonkeyPatch
) -> Device:
    """A device whose products all run in one kind of block: the test's own, or the smallest."""
    sides = getattr(request, "param", BLOCKS[0])
    monkeypatch.setattr(product, "choose_block", lambda *of: Block(*sides, *of[-2:]))
    return fresh_variants["gpu"]


def operand(rng: np.random.Generator, device: Device, shape: tuple[int, ...], layout: str) -> tuple[Tensor, np.ndarray]:
    """Return a tensor that lies in memory as ``layout`` says, and its elements in double precision."""
    if layout == "plain":
        given = rng.standard_normal(shape, np.float32)
        return tensor(given, device), given.astype(np.float64)
    *batch, rows, columns = shape
    if layout == "turned":
        given = rng.standard_normal((*batch, columns, rows), np.float32)
        return tensor(given, device).transpose(), given.swapaxes(-1, -2).astype(np.float64)
    given = rng.standard_normal((*batch, rows + 1, 2 * columns + 1), np.float32)  # neither aligned nor contiguous
    return tensor(given, device)[..., 1:, 1::2], given[..., 1:, 1::2].astype(np.float64)


def close(got: Tensor, want: np.ndarray) -> None:
    # Sums of up to 64 products near 1, each rounded once.
    np.testing.assert_allclose(got.numpy(), want, 2e-6, 2e-5)


def check(device: Device, layouts: tuple[str, str], rng: np.random.Generator) -> None:
    for rows, columns, inner in SHAPES:
        x, a = operand(rng, device, (rows, inner), layouts[0])
        y, b = operand(rng, device, (inner, columns), layouts[1])
        close(x @ y, a @ b)


@pytest.mark.parametrize("device", BLOCKS, ids=str, indirect=True)
@pytest.mark.parametrize("layouts", LAYOUTS, ids=str)
def test_a_block_product_agrees_with_float64(
    device: Device, layouts: tuple[str, str], rng: np.random.Generator, trust: str
) -> None:
    check(device, layouts, rng)


@pytest.mark.parametrize("device", CHOSEN, ids=str, indirect=True)
@pytest.mark.parametrize("layouts", LAYOUTS[:2], ids=str)
def test_the_blocks_of_large_products_do_as_well(
    device: Device, layouts: tuple[str, str], rng: np.random.Generator
) -> None:
    check(device, layouts, rng)


def test_batches_broadcast(device: Device, rng: np.random.Generator) -> None:
    x, a = operand(rng, device, (3, 1, 33, 20), "plain")
    y, b = operand(rng, device, (2, 20, 68), "turned")
    close(x @ y, a @ b)


def test_captured_blocks_apply_what_follows_and_sum_columns(device: Device, rng: np.random.Generator) -> None:
    (x, a), (w, b), (g, c) = (operand(rng, device, s, "plain") for s in ((96, 64), (64, 128), (96, 128)))
    bias, d = operand(rng, device, (128,), "plain")

    @capture
    def both(x: Tensor, w: Tensor, bias: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (x @ w + bias).relu(), x.transpose() @ g, g.sum(0)

    out, weight, sums = both(x, w, bias, g)
    assert both.steps[-1].step.launches == 2
    close(out, np.maximum(a @ b + d, 0))
    close(weight, a.T @ c)
    close(sums, c.sum(0))


def test_nan_stays_in_its_row_and_column(device: Device) -> None:
    x, y = np.ones((70, 40), np.float32), np.ones((40, 70), np.float32)
    x[3, 5], y[7, 11] = np.nan, np.inf
    got = (tensor(x, device) @ tensor(y, device)).numpy()
    assert np.isnan(got[3]).all() and np.isinf(np.delete(got[:, 11], 3)).all()
    assert np.isfinite(np.delete(np.delete(got, 3, 0), 11, 1)).all()


@pytest.mark.parametrize(
    ("x_shape", "y_shape"),
    [
        ((1, 64), (64, 64)),
        ((33, 17), (17, 1)),
        ((3, 1, 20), (3, 20, 8)),
        ((2, 1, 1, 5), (3, 5, 4)),
        ((1, 300), (300, 1)),
    ],
)
@pytest.mark.parametrize("layout", ["plain", "turned"])
def test_one_row_or_column_is_folded_in_one_launch(
    gpu_device: Device, x_shape: tuple[int, ...], y_shape: tuple[int, ...], layout: str, rng: np.random.Generator
) -> None:
    x, a = operand(rng, gpu_device, x_shape, layout)
    y, b = operand(rng, gpu_device, y_shape, layout)
    bias, c = operand(rng, gpu_device, y_shape[-1:], "plain")
    product = capture(lambda x, y, bias: (x @ y + bias).relu())
    got = product(x, y, bias)
    assert product.steps[-1].step.launches == 1
    np.testing.assert_allclose(got.numpy(), np.maximum(a @ b + c, 0), 2e-6, 5e-5)


def test_the_choice_of_a_block_follows_the_number_of_blocks() -> None:
    gpu = Target(software=False, invocations=256, storage=49152)

    def chosen(rows: int, columns: int, batches: int, inner: int = 512) -> tuple[int, ...] | None:
        found = choose_block(gpu, rows, columns, inner, batches, True, False)
        return found and found[:4]

    assert chosen(4096, 4096, 1) == LARGE
    assert chosen(1024, 1024, 1) == BROAD
    assert chosen(16384, 64, 1) == MIDDLE
    assert chosen(1024, 512, 1) == SMALL
    assert chosen(64, 512, 1) is None
    assert chosen(16, 16, 100_000) is None and chosen(1024, 512, 1, inner=10) is None
    assert choose_block(Target(software=True, invocations=256, storage=49152), 4096, 4096, 4096, 1, True, True) is None


def test_a_block_fits_the_portable_workgroup_memory() -> None:
    portable = Target(software=False, invocations=256, storage=16384)
    for by_inner in ((True, True), (True, False), (False, False)):
        block = choose_block(portable, 4096, 4096, 4096, 1, *by_inner)
        assert block is not None and block.storage <= 16384 and block.threads <= 256
