"""Sorts, scans and selections of many elements on both kinds of kernels: what they cost, and that they repeat themselves."""

from __future__ import annotations

import numpy as np
import pytest

from tests.case import f32
from wgpu_nn import Device, Tensor, switches, tensor
from wgpu_nn.errors import CaptureError
from wgpu_nn.train.capture import capture

MANY = 300_007  # a prime: several launches of tiles deep, beyond what llvmpipe's loops have turns


@pytest.fixture(params=["software", "gpu"])
def device(request: pytest.FixtureRequest, gpu_variants: dict[str, Device]) -> Device:
    return gpu_variants[request.param]


def test_many_elements_are_scanned(device: Device, rng: np.random.Generator) -> None:
    x = rng.integers(-9, 9, MANY).astype(np.int32)
    assert (tensor(x, device).cumsum(0).numpy() == np.cumsum(x)).all()
    columns = x[: MANY // 3 * 3].reshape(-1, 3)
    assert (tensor(columns, device).cumsum(0).numpy() == np.cumsum(columns, axis=0)).all()
    assert (tensor(columns, device).cummax(0).numpy() == np.maximum.accumulate(columns, axis=0)).all()


def test_a_scan_is_the_same_each_time_and_close_to_double_precision(device: Device, rng: np.random.Generator) -> None:
    x = rng.standard_normal(MANY).astype(np.float32)
    first, second = (tensor(x, device).cumsum(0).numpy() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, np.cumsum(x.astype(np.float64)), atol=0.02)  # sums below 2,000


def test_scans_of_more_rows_than_one_dimension_has_workgroups(device: Device) -> None:
    rows = 65_535 + 4
    x = tensor(np.ones((1, 70), np.int32), device).expand(rows, 70)
    out = x.cumsum(1)
    assert out[-1].tolist() == list(range(1, 71)) and out[:, -1].min().item() == 70


@pytest.mark.slow
def test_sorts_of_more_rows_than_one_dimension_has_workgroups(device: Device) -> None:
    x = tensor(np.ones((1, 70), np.int32), device).expand(65_535 + 4, 70)
    assert x.argsort(1, descending=True)[-1].tolist() == list(range(70))


def test_many_elements_are_sorted_and_the_largest_found(device: Device, rng: np.random.Generator) -> None:
    x = np.round(rng.standard_normal(MANY) * 100).astype(np.float32)  # many equal ones
    x[rng.integers(0, MANY, 50)] = np.nan
    places = np.argsort(x, kind="stable")
    assert (tensor(x, device).argsort().numpy() == places).all()
    values, found = tensor(x, device).topk(100, largest=False)
    assert (found.numpy() == places[:100]).all() and (values.numpy() == x[places[:100]]).all()


def test_many_elements_are_selected_and_counted(device: Device, rng: np.random.Generator) -> None:
    x = rng.integers(0, 3, (MANY // 7, 7)).astype(np.int32)
    assert (tensor(x, device).nonzero().numpy() == np.argwhere(x)).all()
    tiny = np.where(x > 1, f32(1e-40), f32(-0.0))  # which an adapter may take for 0 in arithmetic
    assert (tensor(tiny, device).nonzero().numpy() == np.argwhere(tiny)).all()
    assert (tensor(tiny, device).transpose().nonzero().numpy() == np.argwhere(tiny.T)).all()
    assert (tensor(x, device).masked_select(tensor(x > 1, device)).numpy() == x[x > 1]).all()
    assert (tensor(x, device).bincount(5).numpy() == np.bincount(x.ravel(), minlength=5)).all()
    y = rng.standard_normal(MANY).astype(np.float32)
    want = np.histogram(y, 16, (-2.0, 2.0))[0]  # edges are powers of two, so that no rounding moves them
    assert (tensor(y, device).histogram(16, -2, 2).numpy() == want).all()


@pytest.mark.parametrize(
    ("method", "launches"), [("nonzero", 3), ("nonzero of 3 axes", 3), ("masked_select", 4), ("bincount", 7)]
)
def test_a_selection_is_few_launches_and_reads_one_number(method: str, launches: int, gpu_device: Device) -> None:
    """Counts of slices, a scan of these, and the indices of all axes at once; then a gather."""
    x = tensor(np.tile(f32([0, 2, 3, 0, 5, 0]), 2000), gpu_device)
    mask, whole, deep = x > 0.0, x.int(), x.reshape(20, 30, 20)
    work = {
        "nonzero": x.nonzero, "nonzero of 3 axes": deep.nonzero, "masked_select": lambda: x.masked_select(mask),
        "bincount": whole.bincount,
    }[method]  # fmt: skip
    gpu_device.sync()
    before = gpu_device.gpu.counts.copy()
    work()
    gpu_device.sync()
    since = gpu_device.gpu.counts.since(before)
    assert (since.launches, since.reads) == (launches, 1)


@pytest.mark.parametrize("method", ["nonzero", "masked_select", "bincount"])
def test_a_selection_cannot_be_captured_and_says_so(method: str, gpu_device: Device) -> None:
    def step(x: Tensor) -> Tensor:
        return (
            x.int().bincount() if method == "bincount" else x.masked_select(x > 0.0) if "m" in method else x.nonzero()
        )

    with pytest.raises(CaptureError, match="read: takes a value out of a captured function"):
        capture(step)(tensor([0.0, 2.0], gpu_device))


@pytest.mark.parametrize("fuse", [True, False])
def test_captured_sorts_scans_and_counts_equal_eager_ones(
    fuse: bool, gpu_device: Device, rng: np.random.Generator
) -> None:
    x, index = rng.standard_normal(5000).astype(np.float32), rng.integers(0, 40, 5000)

    def step(x: Tensor, index: Tensor) -> tuple[Tensor, ...]:
        values, places = (x * 2.0).sort()
        top, best = x.topk(7)
        rows = x.reshape(5000, 1).expand(5000, 64) * 0.5
        table = rows.run("full", 0.0, shape=(40, 64), dtype=x.dtype)
        sums = table.scatter_add(0, index.reshape(5000, 1).expand(5000, 64), rows)
        return values, places, top, best, x.cumsum(0) + 1.0, x.histogram(9, -1, 1), sums

    given = tensor(x, gpu_device), tensor(index, gpu_device)
    captured = capture(fuse=fuse)(step)
    for _ in range(2):
        for got, want in zip(captured(*given), step(*given), strict=True):
            np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-6, atol=1e-6)


def test_a_new_length_compiles_nothing(gpu_device: Device, rng: np.random.Generator) -> None:
    def work(n: int) -> None:
        x = tensor(rng.standard_normal(n).astype(np.float32), gpu_device)
        x.sort()
        x.cumsum(0)
        gpu_device.sync()

    for n in (9000, 12001):  # one a multiple of four, and one not
        work(n)
    before = gpu_device.gpu.counts.pipelines
    for n in (9001, 10000, 30003, 8888):
        work(n)
    assert gpu_device.gpu.counts.pipelines == before


@pytest.mark.parametrize("senders", [130, 70_001])
def test_scattered_sums_of_many_senders_to_few_targets(senders: int, device: Device, rng: np.random.Generator) -> None:
    index, x = np.minimum(rng.integers(0, 400, senders), 50), rng.standard_normal((senders, 70)).astype(np.float32)
    want = np.zeros((600, 70))
    np.add.at(want, index, x.astype(np.float64))
    spread = tensor(index, device).reshape(senders, 1).expand(senders, 70)
    table = tensor(np.zeros((600, 70), np.float32), device)
    first, second = (table.scatter_add(0, spread, tensor(x, device)).numpy() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, want, atol=2e-3)


@pytest.mark.unwatched("adds in any order on purpose", "race")
@pytest.mark.parametrize("columns", [1, 70])
@pytest.mark.parametrize("captured", [False, True])
def test_sums_in_any_order_on_request_are_those_in_a_fixed_one(
    columns: int, captured: bool, device: Device, rng: np.random.Generator
) -> None:
    senders = 5003
    index = np.minimum(rng.integers(-400, 400, senders), 50)  # many to the same
    x = rng.standard_normal((senders, columns)).astype(np.float32)
    x[index == 7] = np.nan
    want = np.zeros((400, columns))
    np.add.at(want, index, x.astype(np.float64))

    def send(table: Tensor, index: Tensor, x: Tensor) -> Tensor:
        return table.scatter_add(0, index.reshape(senders, 1).expand(senders, columns), x)

    given = [tensor(v, device) for v in (np.zeros((400, columns), np.float32), index, x)]
    run = capture(send) if captured else send
    fixed = run(*given)
    device.sync()
    with switches.deterministic.set(False):
        before = device.gpu.counts.copy()
        free = run(*given)
        device.sync()
        assert device.gpu.counts.since(before).launches <= 3, "no sort"
    for got in (fixed, free):
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-5, atol=2e-3)  # thousands of sums near 40, in f32


def test_a_gather_has_its_gradient_in_any_order_on_request(device: Device, rng: np.random.Generator) -> None:
    x, index = rng.standard_normal((50, 8)).astype(np.float32), rng.integers(0, 50, 3000).astype(np.int32)
    want = np.bincount(index, minlength=50)[:, None] * 2.0 * x
    with switches.deterministic.set(False):
        w = tensor(x, device.autodiff()).require_grad()
        picked = w.index_select(0, tensor(index, device.autodiff()))
        grads = picked.square().sum().backward()
        found = grads[w].numpy()
    np.testing.assert_allclose(found, want, rtol=1e-4)
