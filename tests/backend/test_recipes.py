"""Eager ops run by recipes: planned once for operands that lie alike, anew for others; right for all, and few enough."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from wgpu_nn import Device, Tensor, switches, tensor
from wgpu_nn.backends import recipe
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.errors import KindError, ShapeError
from wgpu_nn.gpu import Gpu, choose
from wgpu_nn.gpu import device as gpu_device_module


@pytest.fixture
def own(gpu_device: Device) -> Device:
    """The same adapter with recipes of its own."""
    return Device.of(Wgpu(gpu_device.gpu))


@pytest.fixture
def broken() -> Iterator[Device]:
    """A device that a test may open anew, or fill with pipelines."""
    device = Device.of(Wgpu(Gpu(choose()[0])))
    yield device
    device.gpu.destroy()


def plans(device: Device, run: Callable[[], object]) -> int:
    """Return how many ops were planned for ``run``."""
    before = device.gpu.counts.plans
    run()
    return device.gpu.counts.plans - before


def test_an_op_is_planned_once_for_operands_that_lie_alike(own: Device, rng: np.random.Generator) -> None:
    arrays = [rng.standard_normal((3, 5)).astype(np.float32) for _ in range(4)]
    x, y, z, w = (tensor(a, own) for a in arrays)
    assert plans(own, lambda: x + y) == 1
    assert plans(own, lambda: (z + w, w + x, y + y)) == 0
    np.testing.assert_array_equal((z + w).numpy(), arrays[2] + arrays[3])
    np.testing.assert_array_equal((y + y).numpy(), arrays[1] + arrays[1])


def test_a_step_that_is_repeated_plans_nothing(own: Device, rng: np.random.Generator) -> None:
    device = own.autodiff()
    x, w = (tensor(rng.standard_normal(s).astype(np.float32), device) for s in ((4, 6), (6, 3)))

    def step() -> Tensor:
        leaf = w.require_grad()
        return (x @ leaf).relu().sum(0).softmax(0).cumsum(0).max().backward()[leaf]

    first = step().numpy()
    assert plans(own, step) == 0
    np.testing.assert_array_equal(step().numpy(), first)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.transpose(),
        lambda x: x[1:5, 2:6],
        lambda x: x[::2, ::-1],
        lambda x: x[0].expand(4, 8),
        lambda x: x.reshape(4, 16)[:, 4:12],
    ],
    ids=["turned", "part", "steps", "expanded", "reshaped"],
)
def test_what_lies_otherwise_is_planned_anew_and_right(view: Callable[..., Tensor], own: Device) -> None:
    given = np.arange(64, dtype=np.float32).reshape(8, 8)
    x = tensor(given, own)
    plain = x.exp()
    seen = view(x)
    want = view(tensor(given, Device("numpy"))).numpy()
    assert plans(own, seen.neg) == 1 and plans(own, seen.neg) == 0
    np.testing.assert_array_equal((-seen).numpy(), -want)
    np.testing.assert_array_equal(seen.sum(0).numpy(), want.sum(0))
    np.testing.assert_array_equal(x.exp().numpy(), plain.numpy())


def test_indices_of_numpy_leave_no_trace(own: Device) -> None:
    x = tensor(np.arange(1000, dtype=np.float32), own)
    one, two = (x.run("slice", x, ranges=((start, 1, 3),)) for start in (np.int64(901), 901))
    assert one.tolist() == two.tolist() == [901, 902, 903]
    assert type(two.handle.offset) is int and type(two.shape[0]) is int


def test_numbers_are_given_anew_at_each_run(own: Device) -> None:
    x = tensor([1.0, -2.0, 3.0], own)
    assert plans(own, lambda: [x * n for n in (2.0, 0.5, float("inf"), -0.0, 1e300)]) == 1
    assert (x * 0.25).tolist() == [0.25, -0.5, 0.75]
    assert (x * 1e300).tolist() == [float("inf"), float("-inf"), float("inf")]
    assert np.signbit((x * -0.0).numpy()).tolist() == [True, False, True]
    assert (x.int() + 2**31 - 1 - 2**31 + 1).tolist() == [1, -2, 3]
    full = [own.backend.run("full", n, shape=(2,), dtype=own.backend.dtypes[x.kind]) for n in (1.0, 2.0)]
    assert [own.backend.download(f).tolist() for f in full] == [[1, 1], [2, 2]]


def test_a_number_of_another_kind_meets_the_rules_anew(own: Device) -> None:
    x = tensor([1, 2], own)
    assert (x + 1).tolist() == [2, 3]
    with pytest.raises(KindError, match="expected a Int number beside a Int tensor, got a Float number"):
        _ = x + 1.0
    with pytest.raises(KindError):
        _ = x + True


def test_an_error_is_raised_each_time(own: Device) -> None:
    x, y = tensor(np.ones((2, 3), np.float32), own), tensor(np.ones((4, 5), np.float32), own)
    for _ in range(2):
        with pytest.raises(ShapeError, match="inner sizes differ"):
            _ = x @ y


def test_switches_that_planners_look_at_have_recipes_of_their_own(own: Device, rng: np.random.Generator) -> None:
    x = tensor(np.zeros(5, np.float32), own)
    index, source = tensor(rng.integers(0, 5, 600), own), tensor(np.ones(600, np.float32), own)
    add = lambda: x.scatter_add(0, index, source)
    fixed = add().numpy()
    with switches.deterministic.set(False):
        assert plans(own, add) == 1
        np.testing.assert_array_equal(add().numpy(), fixed)  # whole numbers: no order rounds them
    assert plans(own, add) == 0


@pytest.mark.unwatched("counts pipelines, and a watch compiles texts of its own")
def test_checked_shaders_run_when_they_are_asked_for(own: Device) -> None:
    x = tensor([1.0, 2.0], own)
    _ = x.atan()
    before = own.gpu.counts.pipelines
    with switches.checked_shaders.set(True):
        _ = x.atan()
    _ = x.atan()
    assert own.gpu.counts.pipelines == before + 1


def test_memory_on_the_way_is_given_back_and_used_again_within_an_op(broken: Device) -> None:
    x = tensor(np.random.default_rng(0).permutation(70_000).astype(np.int32), broken)
    places = x.argsort()
    live, peak = broken.memory().live, broken.memory().peak_bytes
    assert live == 2, "the operand and the result"
    del places
    again = x.argsort()
    assert broken.memory().peak_bytes == peak and peak < 8 * x.size * 4
    np.testing.assert_array_equal(x.numpy()[again.numpy()], np.arange(70_000))


def test_recipes_are_bounded(own: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "MOST_RECIPES", 16)
    backend = own.backend
    assert isinstance(backend, Wgpu)
    x = tensor(np.arange(100, dtype=np.float32), own)
    found = [float(x.narrow(0, n, 3).sum().item()) for n in range(60)]
    assert found == [3 * n + 3 for n in range(60)] and len(backend.recipes) <= 16


def test_a_device_that_is_opened_anew_prepares_its_ops_anew(broken: Device) -> None:
    assert (tensor([1.0, 2.0], broken) * 3.0).tolist() == [3.0, 6.0]
    broken.reset()
    assert (tensor([1.0, 2.0], broken) * 5.0).tolist() == [5.0, 10.0]


def test_ops_outlive_their_pipelines(broken: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_device_module, "MOST_PIPELINES", 4)
    x = tensor([0.25, -0.5], broken)
    ops = [x.exp, x.sin, x.cos, x.tanh, x.relu, x.neg, x.abs, x.floor, x.sigmoid]
    want = [op().numpy() for op in ops]
    for _ in range(2):
        for op, good in zip(ops, [op() for op in ops], strict=True):
            np.testing.assert_array_equal(good.numpy(), want[ops.index(op)])
    assert sum(1 for _ in broken.gpu.compiled()) <= 5


def test_threads_share_recipes(own: Device) -> None:
    wrong: list[object] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for n in rng.integers(1, 12, 20):
            given = rng.standard_normal((int(n), 3)).astype(np.float32)
            x = tensor(given, own)
            got = (x * float(n) + x.transpose().transpose()).sum(0, keepdim=True).numpy()
            if not np.allclose(got, (given * n + given).sum(0, keepdims=True), 1e-5, 1e-5):
                wrong.append((seed, n))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_a_view_of_memory_that_is_too_large_to_see_has_a_recipe_of_its_own() -> None:
    low = Device(limits={"max-storage-buffer-binding-size": 1 << 12})
    large, small = np.arange(5000, dtype=np.float32), np.arange(100, dtype=np.float32)
    parts = [tensor(a, low).narrow(0, 0, 100) for a in (large, small)]
    for part in parts:  # which lie alike
        np.testing.assert_array_equal((part + 1.0).numpy(), small + 1)
        assert part.sum().item() == small.sum()


@pytest.mark.unwatched("counts submits, and a device that watches submits each launch")
def test_a_read_is_one_submit(own: Device) -> None:
    x = tensor([1.0, 2.0], own)
    assert (x + 1.0).tolist() == [2.0, 3.0]
    before = own.gpu.counts.copy()
    assert (x + 1.0).tolist() == [2.0, 3.0]
    since = own.gpu.counts.since(before)
    assert (since.launches, since.submits, since.reads, since.plans) == (1, 1, 1, 0)
