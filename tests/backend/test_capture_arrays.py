"""NumPy arrays as arguments of captured functions: tensors inside, that go up with the numbers of each call."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from wgpu_nn import switches
from wgpu_nn.dtype import Bool, Float, Int, float16
from wgpu_nn.errors import CaptureError, KindError
from wgpu_nn.nn import LinearConfig
from wgpu_nn.optim import AdamConfig
from wgpu_nn.tensor import Cell, Device, Tensor, tensor
from wgpu_nn.train import Captured, capture
from wgpu_nn.train.capture import MOST_SENT

ROWS = np.arange(24, dtype=np.float32).reshape(6, 4)


def picking(device: Device, **options: Any) -> Captured[..., Tensor]:
    """Gathers rows, and uses their places in a map, too."""
    data = tensor(ROWS, device)

    def pick(places: Tensor, scale: Tensor) -> Tensor:
        return data.index_select(0, places) * scale + places.float().unsqueeze(1)

    return capture(state=[device], **options)(pick)


def picked(places: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return ROWS[places] * scale.astype(np.float32) + places[:, None]


@pytest.fixture(params=["numpy", "gpu", "fused off", "capture off", "autodiff"])
def each(request: pytest.FixtureRequest, gpu_device: Device) -> Any:
    device = Device("numpy") if request.param == "numpy" else gpu_device
    switch = {"fused off": switches.fusion, "capture off": switches.capture}.get(request.param)
    if switch is None:
        yield device.autodiff() if request.param == "autodiff" else device
    else:
        with switch.set(False):
            yield device


def test_arrays_are_tensors_of_the_call(each: Device) -> None:
    pick = picking(each)
    rng = np.random.default_rng(0)
    for _ in range(5):
        places, scale = rng.integers(0, 6, 3), rng.standard_normal((3, 1))
        np.testing.assert_allclose(pick(places, scale).numpy(), picked(places, scale), rtol=1e-6)


@pytest.mark.parametrize("together", [1, 3, 8])
def test_each_call_has_its_own_although_they_share_a_submit(together: int, gpu_device: Device) -> None:
    pick = picking(gpu_device, calls_per_submit=together)
    calls = [(np.array([n % 6, 5]), np.array([[n], [2.0]])) for n in range(20)]
    found = [pick(*call) for call in calls]
    for call, result in zip(calls, found):
        np.testing.assert_array_equal(result.numpy(), picked(*call))


@pytest.mark.unwatched("counts submits, and a device that watches submits each launch")
def test_nothing_is_uploaded_or_bound_for_them(gpu_device: Device) -> None:
    pick = picking(gpu_device)
    given = np.array([1, 2, 3]), np.ones((3, 1))
    for _ in range(3):
        pick(*given)
    before = gpu_device.gpu.counts.copy()
    pick(*given)
    since = gpu_device.gpu.counts.since(before)
    assert (since.submits, since.uploads, since.bind_groups, since.reads) == (1, 0, 0, 0)


def test_another_shape_or_type_is_another_signature(gpu_device: Device) -> None:
    pick = picking(gpu_device)
    for places in (np.array([1, 2]), np.array([1, 2, 3]), np.array([1, 2], np.uint8), np.array([3, 4])):
        scale = np.ones((1, 1))
        np.testing.assert_array_equal(pick(places, scale).numpy(), picked(places, scale))
    assert len(pick.steps) == 3


@pytest.mark.parametrize("check", [False, True])
def test_kinds_follow_the_elements(check: bool, gpu_device: Device) -> None:
    seen: list[tuple[Any, Any]] = []

    def look(*xs: Tensor) -> list[Tensor]:
        seen[:] = [(x.kind, x.dtype.name) for x in xs]
        return [x.where(1, 0) if x.kind is Bool else x + x for x in xs]

    given = [np.array([1.5, -2.0]), np.array([3, -4]), np.array([True, False, True]), np.zeros((0, 2))]
    given += [np.array(x) for x in (7, True, 2.5)]  # numbers
    found = capture(state=[gpu_device], check=check)(look)(*cast(Any, given))
    float_, int_, bool_ = (Float, "f32"), (Int, "i32"), (Bool, "bool")
    assert seen == [float_, int_, bool_, float_, int_, bool_, float_]
    for x, y in zip(given, found):
        np.testing.assert_array_equal(y.numpy(), x if x.dtype == bool else x + x)


@pytest.mark.unwatched("counts uploads, and a watched step has its own")
def test_halves_and_large_arrays_are_uploaded(gpu_device: Device) -> None:
    double = capture(state=[gpu_device])(lambda x: x * 2)
    half = double(cast(Any, np.array([1.0, 2.5], np.float16)))
    assert half.dtype == float16 and half.numpy().tolist() == [2.0, 5.0]
    for count in (MOST_SENT // 4, MOST_SENT // 4 + 1):
        given = np.arange(count, dtype=np.int32)
        for add in (0, 1):
            before = gpu_device.gpu.counts.uploads
            np.testing.assert_array_equal(double(cast(Any, given + add)).numpy(), 2 * (given + add))
            assert gpu_device.gpu.counts.uploads - before == (count > MOST_SENT // 4)


def test_arrays_stand_beside_tensors_and_in_structures(gpu_device: Device) -> None:
    @capture
    def total(named: dict[str, Any], *, more: Tensor) -> Tensor:
        return named["x"] + named["y"][0] + more

    x = tensor([1.0, 2.0], gpu_device)
    named = {"x": x, "y": (np.array([10.0, 20.0]),)}
    assert total(named, more=cast(Any, np.array([100.0, 200.0]))).numpy().tolist() == [111.0, 222.0]
    named["y"] = (np.array([30.0, 40.0]),)
    assert total(named, more=cast(Any, np.array([0.0, 1.0]))).numpy().tolist() == [31.0, 43.0]


def test_they_are_checked_like_other_values(gpu_device: Device) -> None:
    check = picking(gpu_device, check=True)
    for n in range(3):
        places, scale = np.array([n, 5 - n]), np.array([[0.5], [n]])
        np.testing.assert_allclose(check(places, scale).numpy(), picked(places, scale), rtol=1e-6)


@pytest.mark.parametrize("fuse", [True, False])
def test_state_and_results_may_be_what_was_sent(fuse: bool, gpu_device: Device) -> None:
    last = Cell(tensor([0.0, 0.0], gpu_device))

    def put(x: Tensor) -> tuple[Tensor, Tensor]:
        last.value = x
        return x, x.flip(0)

    step = capture(state=[last], calls_per_submit=4, fuse=fuse)(put)
    found = [step(cast(Any, np.array([n, -n], np.float32))) for n in range(6)]
    assert last.value.numpy().tolist() == [5.0, -5.0]
    assert [(x.tolist(), y.tolist()) for x, y in found] == [([n, -n], [-n, n]) for n in range(6)]


def test_a_call_that_is_refused_changes_nothing(gpu_device: Device) -> None:
    device = gpu_device.autodiff()
    layer, optimizer = LinearConfig(2, 2).init(device), AdamConfig().init()

    def step(x: Tensor) -> None:
        optimizer.step(layer, layer.forward(x.float()).sum().backward())

    captured = capture(state=[layer, optimizer])(step)
    captured(cast(Any, np.array([[1, 2]])))
    before, steps = {k: t.numpy() for k, t in layer.state().items()}, optimizer.steps
    with pytest.raises(KindError):
        captured(cast(Any, np.array([[2**31, 0]])))
    assert optimizer.steps == steps == 1
    for k, t in layer.state().items():
        np.testing.assert_array_equal(t.numpy(), before[k])


def test_what_cannot_be_sent_is_refused_and_the_next_call_works(gpu_device: Device) -> None:
    double = capture(state=[gpu_device])(lambda x: x * 2)
    assert double(cast(Any, np.array([4]))).numpy().tolist() == [8]
    with pytest.raises(KindError, match=r"capture: expected Ints that fit i32, got 2147483648 to 2147483648"):
        double(cast(Any, np.array([2**31])))
    with pytest.raises(KindError, match="expected arrays of numbers or truths, got elements of"):
        double(cast(Any, np.array([1j])))
    assert double(cast(Any, np.array([5]))).numpy().tolist() == [10]
    with pytest.raises(CaptureError, match="expected a tensor, or state, that says where arrays go"):
        capture(lambda x: x)(np.ones(2))
    with pytest.raises(CaptureError, match="expected tensors as results, got an array"):
        capture(lambda x: np.ones(2))(tensor([1.0], gpu_device))


@pytest.mark.parametrize("op", ["mean", "sum", "max", "logsumexp"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_scalar_is_put_into_a_small_tensor_by_one_launch(op: str, inside: bool, gpu_device: Device) -> None:
    column, places = Cell(tensor(np.zeros(100), gpu_device)), tensor(np.arange(100), gpu_device)

    def put(x: Tensor, place: Tensor) -> None:
        x = x * 2.0 if inside else x  # a chain that the reduction computes at its load
        column.value = (places == place).where(getattr(x, op)(), column.value)

    step = capture(state=[column])(put)
    given = np.random.default_rng(1).standard_normal((5, 7, 3)).astype(np.float32)
    for n, x in enumerate(given):
        step(tensor(x, gpu_device), cast(Any, np.array(20 * n)))
    roomy = gpu_device.gpu.limits["max-storage-buffers-per-shader-stage"] > 8
    assert step.steps[0].step.launches == 1 or not roomy
    eager = [getattr(tensor(x, gpu_device) * (2.0 if inside else 1.0), op)().item() for x in given]
    want = np.zeros(100)
    want[:100:20] = eager
    np.testing.assert_allclose(column.value.numpy(), want, rtol=1e-6)


def test_a_scalar_of_many_elements_has_a_launch_of_its_own(gpu_device: Device) -> None:
    column = Cell(tensor(np.zeros(100), gpu_device))

    def put(x: Tensor) -> None:
        column.value = column.value + x.mean()

    step = capture(state=[column])(put)
    step(tensor(np.ones(1 << 12), gpu_device))
    assert step.steps[0].step.launches > 1
    np.testing.assert_array_equal(column.value.numpy(), np.ones(100))
