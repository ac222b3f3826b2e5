"""The walk back: what gradients belong to which leaf, how they add up, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wgpu_nn import Device, Float, Gradients, Int, Tensor, cat, ones, tensor, where, zeros
from wgpu_nn.errors import DeviceError, GradientError, KindError


@pytest.fixture
def device(exact: Device) -> Device:
    return exact.autodiff()


def leaf(data: object, device: Device) -> Tensor:
    return tensor(data, device, Float).require_grad()


def slope(loss: Tensor, of: Tensor) -> list[object] | float:
    return loss.backward()[of].tolist()


def test_a_broadcast_operand_gets_the_sum_over_its_copies(device: Device) -> None:
    x, y, z = leaf([[1.0, 2, 3], [4, 5, 6]], device), leaf([10.0, 20, 30], device), leaf(2.0, device)
    grads = ((x + y) * z).sum().backward()
    assert grads[x].tolist() == [[2, 2, 2], [2, 2, 2]]
    assert grads[y].tolist() == [4, 4, 4]
    assert grads[z].item() == 141 and grads[z].shape == ()


def test_a_size_one_axis_that_was_repeated_is_summed_and_kept(device: Device) -> None:
    x, y = leaf([[1.0], [2]], device), leaf([[3.0, 4, 5]], device)
    grads = (x * y).sum().backward()
    assert grads[x].tolist() == [[12], [12]] and grads[y].tolist() == [[3, 3, 3]]


@pytest.mark.parametrize(("op", "wanted"), [("max", [0, 0.5, 0.5]), ("min", [1, 0, 0])])
def test_equal_extremes_share_the_gradient(op: str, wanted: list[float], device: Device) -> None:
    x = leaf([1.0, 3, 3], device)
    assert slope(getattr(x, op)(), x) == wanted


def test_equal_operands_of_maximum_share_the_gradient(device: Device) -> None:
    x, y = leaf([1.0, 2, 3], device), leaf([2.0, 2, 2], device)
    grads = x.maximum(y).sum().backward()
    assert grads[x].tolist() == [0, 0.5, 1] and grads[y].tolist() == [1, 0.5, 0]
    assert slope(x.minimum(2.0).sum(), x) == [1, 0.5, 0]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [([2.0, 3, 4], [12, 8, 6]), ([2.0, 0, 4], [0, 8, 0]), ([0.0, 3, 0], [0, 0, 0]), ([-1.0, 0, -2], [0, 2, 0])],
)
def test_the_gradient_of_a_product_is_exact_with_zeros(data: list[float], wanted: list[float], device: Device) -> None:
    x = leaf(data, device)
    assert slope(x.prod(), x) == wanted


def test_the_gradient_of_a_product_with_zeros_is_per_row(device: Device) -> None:
    x = leaf([[2.0, 0, 4], [1, 2, 3]], device)
    assert slope(x.prod(1).sum(), x) == [[0, 8, 0], [6, 3, 2]]


def test_the_kinks_have_the_slopes_of_pytorch(device: Device) -> None:
    x = leaf([-1.0, 0, 1], device)
    assert slope(x.relu().sum(), x) == [0, 0, 1]
    assert slope(x.abs().sum(), x) == [-1, 0, 1]
    assert slope((x**0).sum(), x) == [0, 0, 0]
    assert slope((x**2).sum(), x) == [-2, 0, 2]
    assert slope(x.clamp(-0.5, 0.5).sum(), x) == [0, 1, 0]


def test_a_tensor_used_twice_gets_both_gradients(device: Device) -> None:
    x = leaf([3.0], device)
    y = x * x
    assert slope((y * x + y + x).sum(), x) == [3 * 9 + 2 * 3 + 1]


def test_a_long_chain_needs_no_deep_recursion(device: Device) -> None:
    x = leaf([1.0], device)
    y = x
    for _ in range(3000):
        y = y + 0.001
    assert slope(y.sum(), x) == [1]


def test_a_diamond_is_walked_once_per_op(device: Device) -> None:
    x = leaf([1.0], device)
    y = x
    for _ in range(60):  # 2^60 paths
        y = (y + y) * 0.5
    assert slope(y.sum(), x) == [1]


def test_detach_stops_the_gradient(device: Device) -> None:
    x = leaf([3.0], device)
    assert slope((x * x.detach()).sum(), x) == [3]
    with pytest.raises(GradientError, match="that requires gradients"):
        x.detach().sum().backward()


def test_require_grad_makes_a_new_leaf(device: Device) -> None:
    x = leaf([3.0], device)
    y = (x * x).require_grad()
    grads = (y * 2.0).sum().backward()
    assert grads[y].tolist() == [2] and x not in grads and len(grads) == 1


def test_backward_can_be_repeated_and_seeded(device: Device) -> None:
    x = leaf([1.0, 2], device)
    y = x * x
    assert y.sum().backward()[x].tolist() == y.sum().backward()[x].tolist() == [2, 4]
    assert y.backward(tensor([10.0, 1], device.inner()))[x].tolist() == [20, 4]


def test_gradients_live_on_the_inner_device(device: Device) -> None:
    x = leaf([1.0], device)
    grads = (x * 2.0).sum().backward()
    assert grads[x].device == device.inner() and next(iter(grads)).tolist() == [2]


def test_gradients_flow_through_views_joins_and_choices(device: Device) -> None:
    x, y = leaf(np.arange(6.0).reshape(2, 3), device), leaf(np.ones((2, 3)), device)
    both = cat([x, y * 2.0], 1)
    assert both.shape == (2, 6)
    grads = (both.flip(1).transpose()[1:3] ** 2).sum().backward()
    assert grads[x].tolist() == [[0, 0, 0], [0, 0, 0]] and grads[y].tolist() == [[8, 8, 0], [8, 8, 0]]
    picked = where(x > 2.0, x, y * 3.0).sum().backward()
    assert picked[x].tolist() == [[0, 0, 0], [1, 1, 1]] and picked[y].tolist() == [[3, 3, 3], [0, 0, 0]]


def test_setting_elements_cuts_their_gradient_and_passes_the_values(device: Device) -> None:
    x, v = leaf([1.0, 2, 3], device), leaf([5.0], device)
    grads = (x.set(slice(1, 2), v) * tensor([10.0, 20, 30], device)).sum().backward()
    assert grads[x].tolist() == [10, 0, 30] and grads[v].tolist() == [20]


def test_an_index_named_twice_gets_twice_the_gradient(device: Device) -> None:
    x = leaf([1.0, 2, 3], device)
    assert slope(x[[0, 2, 0]].sum(), x) == [2, 0, 1]


def test_an_empty_operand_has_an_empty_gradient(device: Device) -> None:
    x = leaf(np.zeros((0, 3)), device)
    assert (x * 2.0).sum().backward()[x].shape == (0, 3)


def test_composites_have_gradients(device: Device) -> None:
    x = leaf([-1.5, 0.25, 2.0], device)
    grad = (
        (x.softplus() + x.gelu() + x.silu() + x.elu() + x.leaky_relu() + x.mish() + x.log_sigmoid()).sum().backward()[x]
    )
    loss = lambda t: float(
        (t.softplus() + t.gelu() + t.silu() + t.elu() + t.leaky_relu() + t.mish() + t.log_sigmoid()).sum()
    )
    inner = device.inner()
    for i in range(3):
        step = np.eye(3)[i] * 1e-6
        up, down = (loss(tensor(np.array([-1.5, 0.25, 2.0]) + s * step, inner)) for s in (1, -1))
        assert grad[i].item() == pytest.approx((up - down) / 2e-6, rel=1e-6)
    assert slope(x.var(), x) == pytest.approx([(v - 0.25) for v in (-1.5, 0.25, 2.0)])
    assert slope(x.logsumexp(), x) == pytest.approx(x.softmax(0).tolist())


def test_second_and_third_derivatives_nest(exact: Device) -> None:
    x = tensor([2.0], exact.autodiff().autodiff().autodiff()).require_grad()
    first = (x**4).sum().backward()[x]
    second = first.sum().backward()[x.inner()]
    third = second.sum().backward()[x.inner().inner()]
    assert (first.item(), second.item(), third.item()) == (32, 48, 48)


def test_what_has_no_gradient_is_refused_by_name(device: Device) -> None:
    x = leaf([1.0, 2], device)
    with pytest.raises(GradientError, match=r"backward: expected a tensor of one element, got \[2\]"):
        (x * 2.0).backward()
    with pytest.raises(GradientError, match="that requires gradients"):
        tensor([1.0], device).backward()
    with pytest.raises(GradientError, match="that requires gradients"):
        (x > 1.0).int().sum().backward()
    with pytest.raises(GradientError, match="that requires gradients"):
        x.argmax().backward()
    with pytest.raises(GradientError, match="backward: expected a tensor of an autodiff device"):
        ones((), device.inner()).backward()
    with pytest.raises(GradientError, match="require_grad: expected a tensor of an autodiff device"):
        ones((), device.inner()).require_grad()
    with pytest.raises(KindError, match="require_grad: expected a Float tensor, got Int"):
        zeros((2,), device, Int).require_grad()
    with pytest.raises(GradientError, match="gradients: none for this tensor"):
        (x * 2.0).sum().backward()[leaf([1.0], device)]
    with pytest.raises(DeviceError, match="inner: expected an autodiff device"):
        device.inner().inner()


def test_an_op_without_a_rule_is_refused_by_name(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    from wgpu_nn.autodiff import backend

    monkeypatch.setattr(backend, "RULES", {k: v for k, v in backend.RULES.items() if k != "exp"})
    with pytest.raises(GradientError, match="exp: has no gradient rule"):
        leaf([1.0], device).exp()
    assert tensor([0.0], device).exp().item() == 1


def test_gradients_add_scale_and_clip(device: Device) -> None:
    x, y = leaf([3.0], device), leaf([4.0], device)
    a, b = (x * 3.0 + y * 4.0).sum().backward(), (x * 1.0).sum().backward()
    both: Gradients = a + b
    assert both[x].item() == 4 and both[y].item() == 4 and a[x].item() == 3
    assert a.norm().item() == 5
    clipped = a.clip_norm(1.0)
    assert clipped[x].item() == pytest.approx(0.6) and clipped[y].item() == pytest.approx(0.8)
    assert a.clip_norm(10.0)[y].item() == 4
    assert a.clip_value(3.5)[y].item() == 3.5
    assert a.map(lambda g: g * 2.0)[x].item() == 6
    assert math.isfinite(b.clip_norm(0.5).norm().item()) and y not in b


def test_history_is_freed_with_its_tensors(device: Device) -> None:
    import gc
    import weakref

    x = leaf([1.0], device)
    y = (x * 2.0).exp()
    seen = weakref.ref(y)
    del y
    gc.collect()
    assert seen() is None
