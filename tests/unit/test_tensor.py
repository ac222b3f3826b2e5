"""Tensors on the NumPy device: making, kinds, operators, composites, moving, printing."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import wgpu_nn as nn
from tests.case import f32, i32
from wgpu_nn import Bool, Device, Float, Int, Tensor, tensor
from wgpu_nn.errors import DeviceError, DeviceMismatchError, KindError, ShapeError

CPU = Device("numpy")


# --- making ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "kind", "dtype"),
    [
        (1.5, Float, np.float32), ([1, 2], Int, np.int32), ([[True]], Bool, np.bool_), ([], Float, np.float32),
        (np.zeros(3, np.uint8), Int, np.int32), (np.zeros(3, np.float64), Float, np.float32), ([1, 2.5], Float, np.float32),
        (np.zeros((0, 2), np.int64), Int, np.int32), (np.array(2, np.float16), Float, np.float16), (True, Bool, np.bool_),
    ],
)  # fmt: skip
def test_the_data_decides_the_kind_and_the_device_the_element_type(data: Any, kind: nn.Kind, dtype: Any) -> None:
    x = tensor(data, CPU)
    assert x.kind is kind and x.numpy().dtype == dtype
    np.testing.assert_array_equal(x.numpy(), np.asarray(data))
    assert tensor(data, Device("numpy:f64")).numpy().dtype.itemsize in (8, 1)


def test_a_tensor_is_a_copy_of_its_data_and_gives_copies() -> None:
    source = np.ones(3, np.float32)
    x = tensor(source, CPU)
    source[0] = 9
    x.numpy()[1] = 9
    assert x.tolist() == [1, 1, 1]


def test_a_kind_can_be_named() -> None:
    assert tensor([0, 1], CPU, Float).tolist() == [0.0, 1.0]
    assert tensor([0, 2], CPU, Bool).tolist() == [False, True]
    assert tensor(tensor([1.7], CPU), CPU, Int).tolist() == [1]


def test_data_that_no_kind_holds_is_refused() -> None:
    with pytest.raises(KindError, match="tensor: expected numbers or truths, got elements of <U1"):
        tensor(["a"], CPU)
    with pytest.raises(KindError, match="tensor: expected numbers or truths, got elements of complex128"):
        tensor([1j], CPU)
    with pytest.raises(KindError, match="tensor: expected Ints that fit i32, got 0 to 2147483648"):
        tensor([0, 2**31], CPU)
    assert tensor([2**31], Device("numpy:f64")).item() == 2**31


def test_filled_counted_and_joined_tensors() -> None:
    assert nn.zeros((2, 2), CPU).tolist() == [[0, 0], [0, 0]] and nn.zeros(2, CPU, Bool).tolist() == [False, False]
    assert nn.ones((), CPU, Int).item() == 1 and nn.full(2, 2.5, CPU).tolist() == [2.5, 2.5]
    assert nn.full((1,), 3, CPU).kind is Int and nn.full((1,), True, CPU).kind is Bool
    assert nn.zeros_like(tensor([1, 2], CPU)).kind is Int and nn.ones_like(tensor([[0.5]], CPU)).tolist() == [[1]]
    for bounds in ((5,), (2, 7), (7, 2, -2), (0,), (3, 3), (-3, 4, 3)):
        assert nn.arange(*bounds, device=CPU).tolist() == list(range(*bounds))
    assert nn.eye(2, CPU).tolist() == [[1, 0], [0, 1]]
    a, b = tensor([[1.0], [2]], CPU), tensor([[3.0], [4]], CPU)
    assert nn.cat([a, b], 1).tolist() == [[1, 3], [2, 4]] and nn.cat([a, b], -2).shape == (4, 1)
    for dim in (0, 1, 2, -1, -3):
        np.testing.assert_array_equal(nn.stack([a, b], dim).numpy(), np.stack([a.numpy(), b.numpy()], dim))
    assert nn.where(a > 1.0, a, 0.0).tolist() == [[0], [2]]


# --- kinds -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f, i, b: f + i, "add: expected operands of one element type, got Float"),
        (lambda f, i, b: i * f, "mul: expected operands of one element type, got Int"),
        (lambda f, i, b: f < i, "lt: expected operands of one element type"),
        (lambda f, i, b: i + 1.5, "add: expected a Int number beside a Int tensor, got a Float number"),
        (lambda f, i, b: f + True, "add: expected a Float number beside a Float tensor, got a Bool number"),
        (lambda f, i, b: b + b, "add: expected a Float or Int tensor, got bool"),
        (lambda f, i, b: i / i, "div: expected a Float tensor, got i32"),
        (lambda f, i, b: i.exp(), "exp: expected a Float tensor, got i32.*; convert it with .float()"),
        (lambda f, i, b: b.sum(), "sum: expected a Float or Int tensor, got bool"),
        (lambda f, i, b: i.mean(), "mean: expected a Float tensor, got i32"),
        (lambda f, i, b: f.any(), "any: expected a Bool tensor, got f32"),
        (lambda f, i, b: ~f, "logical_not: expected a Bool tensor"),
        (lambda f, i, b: f & b, "logical_and: expected operands of one element type"),
        (lambda f, i, b: f.where(f, f), "where: expected a Bool tensor, got f32"),
        (lambda f, i, b: b.where(f, i), "where: expected operands of one element type"),
        (lambda f, i, b: i.unsqueeze(0) @ i.unsqueeze(1), "matmul: expected a Float tensor"),
        (lambda f, i, b: f.gather(0, f), "gather: expected an Int tensor, got f32"),
        (lambda f, i, b: f.scatter_add(0, i, i), "scatter_add: expected operands of one element type"),
        (lambda f, i, b: nn.cat([f, i]), "cat: expected operands of one element type"),
        (lambda f, i, b: i.softmax(0), "softmax: expected a Float tensor"),
        (lambda f, i, b: f.one_hot(3), "one_hot: expected an Int tensor, got a Float one"),
        (lambda f, i, b: f @ 2, "matmul: expected a tensor on the right, got int"),
    ],
)  # fmt: skip
def test_kinds_that_do_not_fit_are_refused_by_the_ops_name(call: Callable[..., Any], message: str) -> None:
    with pytest.raises(KindError, match=message):
        call(tensor([0.5, 1.5], CPU), tensor([0, 1], CPU), tensor([True, False], CPU))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x + tensor([1.0] * 4, CPU), r"add: shapes do not broadcast, got \[2, 3\] and \[4\]"),
        (lambda x: x @ x, r"matmul: inner sizes differ, got \[2, 3\] @ \[2, 3\]; transpose one of them\?"),
        (lambda x: x.reshape(4, 2), r"reshape: expected a shape of 6 elements like \[2, 3\], got \[4, 2\] with 8"),
        (lambda x: x.reshape(-1, -1), "reshape: expected sizes of 0 or more and at most one -1"),
        (lambda x: x.reshape(-1, 4), r"reshape: cannot fill -1"),
        (lambda x: x.sum(2), r"sum: expected an axis of a rank-2 tensor \(-2 to 1\), got 2"),
        (lambda x: x.sum((0, -2)), "sum: expected distinct axes"),
        (lambda x: x.permute(0, 0), "permute: expected each axis"),
        (lambda x: x.expand(2, 4), r"expand: expected sizes of 1 or equal ones from the right, got \[2, 3\] to \[2, 4\]"),
        (lambda x: x.squeeze(0), "squeeze: expected axes of size 1"),
        (lambda x: x.narrow(1, 2, 2), "narrow: expected a range within 3 on axis 1"),
        (lambda x: x[:, :0].max(1), r"max: has no value over an axis without elements, got \[2, 0\] over axes"),
        (lambda x: x[:, :0].argmax(), "argmax: has no value"),
        (lambda x: nn.cat([x, x[:, :2]], 0), "cat: expected shapes equal but on axis 0"),
        (lambda x: x.reshape(1, 1, 1, 1, 1, 1, 1, 2, 3), "reshape: expected a result of rank 8 at most"),
        (lambda x: nn.zeros((1, -2), CPU), "full: expected sizes of 0 or more"),
        (lambda x: nn.cat([]), "cat: expected at least one tensor"),
        (lambda x: nn.arange(0, 3, 0, CPU), "arange: expected a step other than 0"),
        (lambda x: x.flatten(1, 0), "flatten: expected start <= end"),
        (lambda x: x.dot(x), "dot: expected vectors"),
        (lambda x: x.index_select(0, tensor([[0]], CPU)), "index_select: expected an index of rank 1"),
        (lambda x: x.gather(0, tensor([0], CPU)), "gather: expected an index of rank 2"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused_by_the_ops_name(call: Callable[..., Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        call(tensor(np.zeros((2, 3)), CPU))


def test_tensors_of_two_devices_are_refused() -> None:
    x, y = tensor([1.0], CPU), tensor([1.0], CPU.autodiff())
    with pytest.raises(
        DeviceMismatchError, match=r"add: expected tensors of one device, got .*numpy.* and .*; move one with .to"
    ):
        _ = x + y
    with pytest.raises(DeviceMismatchError, match="matmul"):
        _ = x.reshape(1, 1) @ y.reshape(1, 1)


# --- operators ---------------------------------------------------------------------------------------------------------
BINARY = [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow]
COMPARE = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


@pytest.mark.parametrize("op", [*BINARY, *COMPARE], ids=lambda o: o.__name__)
def test_an_operator_works_with_tensors_and_numbers_on_either_side(op: Callable[..., Any]) -> None:
    a, b = f32([1, 2.5, 3]), f32([2, 2.5, 0.5])
    x, y = tensor(a, CPU), tensor(b, CPU)
    for got, want in (
        (op(x, y), op(a, b)), (op(x, 2.5), op(a, np.float32(2.5))), (op(2.5, x), op(np.float32(2.5), a)),
        (op(x, 2), op(a, np.float32(2))), (op(2, x), op(np.float32(2), a)),
        (op(x, np.float32(2.5)), op(a, np.float32(2.5))), (op(np.float64(2.5), x), op(np.float32(2.5), a)),
    ):  # fmt: skip
        assert isinstance(got, Tensor)
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-6)


def test_operators_on_ints_and_truths() -> None:
    a, b = i32([7, -7, 0]), i32([2, 2, -3])
    x, y = tensor(a, CPU), tensor(b, CPU)
    for op in (operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, *COMPARE):
        np.testing.assert_array_equal(op(x, y).numpy(), op(a, b))
    assert (10 - x).tolist() == [3, 17, 10] and (10 // y).tolist() == [5, 5, -4] and (-x).tolist() == [-7, 7, 0]
    p, q = tensor([True, True, False], CPU), tensor([True, False, False], CPU)
    assert (p & q).tolist() == [True, False, False] and (p | q).tolist() == [True, True, False]
    assert (
        (p ^ q).tolist() == [False, True, False]
        and (~p).tolist() == [False, False, True]
        and (p & True).tolist() == p.tolist()
    )


def test_what_is_no_number_is_left_to_python() -> None:
    x = tensor([1.0], CPU)
    with pytest.raises(TypeError):
        _ = x + "a"  # pyright: ignore[reportOperatorIssue]
    with pytest.raises(TypeError):
        _ = x + None  # pyright: ignore[reportOperatorIssue]
    with pytest.raises(TypeError):
        _ = np.ones(1) + x
    assert hash(x) != hash(tensor([1.0], CPU)) and len({x, x}) == 1


# --- out to the host ---------------------------------------------------------------------------------------------------
def test_one_element_is_a_python_number() -> None:
    assert float(tensor([[1.5]], CPU)) == 1.5 and int(tensor(2, CPU)) == 2 and isinstance(tensor(2, CPU).item(), int)
    assert bool(tensor([True], CPU)) is True and not tensor(0.0, CPU)
    with pytest.raises(ShapeError, match="item: expected a tensor of one element"):
        tensor([1.0, 2], CPU).item()
    with pytest.raises(ShapeError, match="bool: the truth of"):
        bool(tensor([True, False], CPU))
    with pytest.raises(ShapeError, match="len: a tensor of rank 0"):
        len(tensor(1.0, CPU))


def test_numpy_takes_tensors_for_arrays() -> None:
    x = tensor([[1.0, 2], [3, 4]], CPU)
    assert np.asarray(x).sum() == 10 and np.asarray(x, np.float64).dtype == np.float64
    np.testing.assert_array_equal(np.mean(np.array(x), axis=0), [2, 3])


def test_a_tensor_prints_its_elements_shape_kind_and_device() -> None:
    text = repr(tensor([[1.0, 2.5]], CPU))
    assert (
        "[[1. , 2.5]]" in text
        and "shape=[1, 2]" in text
        and "kind=Float" in text
        and "dtype=f32" in text
        and "numpy" in text
    )
    assert "..." in repr(nn.zeros((1000,), CPU)) and len(repr(nn.zeros((100, 100, 10), CPU))) < 3000
    assert "kind=Bool" in repr(tensor([True], CPU.autodiff())) and "autodiff(numpy)" in repr(tensor(1, CPU.autodiff()))


# --- composites --------------------------------------------------------------------------------------------------------
def test_composites_equal_their_formulas() -> None:
    a = np.linspace(-4, 4, 17).reshape(17)
    x = tensor(a, Device("numpy:f64"))
    sigmoid = 1 / (1 + np.exp(-a))
    softplus = np.log1p(np.exp(a))
    rows: dict[str, tuple[Tensor, Any]] = {
        "square": (x.square(), a * a), "clamp": (x.clamp(-1, 2), np.clip(a, -1, 2)),
        "low": (x.clamp(low=0.5), np.maximum(a, 0.5)),
        "softplus": (x.softplus(), softplus), "beta": (x.softplus(2.0), np.log1p(np.exp(2 * a)) / 2),
        "log_sigmoid": (x.log_sigmoid(), np.log(sigmoid)), "silu": (x.silu(), a * sigmoid),
        "gelu": (x.gelu(), a * 0.5 * (1 + np.vectorize(math.erf)(a / math.sqrt(2)))),
        "leaky_relu": (x.leaky_relu(0.1), np.where(a > 0, a, 0.1 * a)),
        "elu": (x.elu(2.0), np.where(a > 0, a, 2 * np.expm1(a))),
        "mish": (x.mish(), a * np.tanh(softplus)), "var": (x.var(), a.var(ddof=1)), "std": (x.std(correction=0), a.std()),
        "logsumexp": (x.logsumexp(0, keepdim=True), np.log(np.exp(a).sum(keepdims=True))),
        "norm": (x.norm(), np.linalg.norm(a)),
        "outer": (x.outer(x), np.outer(a, a)), "dot": (x.dot(x), a @ a), "rsqrt": ((x * x + 1).rsqrt(), (a * a + 1) ** -0.5),
    }  # fmt: skip
    for name, (got, want) in rows.items():
        np.testing.assert_allclose(got.numpy(), want, rtol=1e-12, atol=1e-12, err_msg=name)


def test_composites_do_not_overflow() -> None:
    x = tensor([-1e4, 0.0, 1e4], CPU)
    assert x.softplus().tolist() == pytest.approx([0, math.log(2), 1e4]) and x.log_sigmoid().tolist() == pytest.approx(
        [-1e4, -math.log(2), 0]
    )
    assert x.logsumexp().item() == 1e4 and tensor([-math.inf] * 2, CPU).logsumexp().item() == -math.inf
    assert tensor([math.inf, 0.0, math.nan], CPU).is_finite().tolist() == [False, True, False]


def test_views_rearrange_as_numpys() -> None:
    a = np.arange(24.0).reshape(2, 3, 4)
    x = tensor(a, CPU)
    for got, want in (
        (x.flatten(), a.reshape(-1)), (x.flatten(1), a.reshape(2, 12)), (x.flatten(0, 1), a.reshape(6, 4)),
        (x.t(), a.swapaxes(1, 2)), (x.transpose(0, 2), a.swapaxes(0, 2)), (x.movedim(0, 2), np.moveaxis(a, 0, 2)),
        (x.movedim(-1, 0), np.moveaxis(a, -1, 0)), (x.flip((0, 2)), np.flip(a, (0, 2))), (x.unsqueeze(-1), a[..., None]),
        (x[:1].squeeze(), a[0]), (x[:, 1:2].squeeze(1), a[:, 1]), (x.narrow(2, 1, 2), a[:, :, 1:3]),
        (x[:1].broadcast_to(3, 3, 4), np.broadcast_to(a[:1], (3, 3, 4))),
        (x[:1].expand(5, -1, -1), np.broadcast_to(a[:1], (5, 3, 4))),
        (x.index_select(1, tensor([2, 0, 2], CPU)), a[:, [2, 0, 2]]), (x.reshape(4, -1), a.reshape(4, 6)),
    ):  # fmt: skip
        np.testing.assert_array_equal(got.numpy(), want)
    assert tensor(1.0, CPU).flatten().shape == (1,)


def test_matmul_takes_vectors_on_either_side() -> None:
    a, v, w = np.arange(6.0).reshape(2, 3), np.arange(3.0), np.arange(2.0)
    x, y, z = (tensor(t, CPU) for t in (a, v, w))
    for got, want in ((x @ y, a @ v), (z @ x, w @ a), (y @ y, v @ v), (x @ x.t(), a @ a.T)):
        np.testing.assert_array_equal(got.numpy(), want)


def test_arg_reductions_flatten_without_an_axis() -> None:
    x = tensor([[1.0, 9], [7, 9]], CPU)
    assert x.argmax().item() == 1 and x.argmin().item() == 0 and x.argmax(0).tolist() == [1, 0]
    assert x.argmax(keepdim=True).shape == (1, 1) and x.argmin(1, keepdim=True).tolist() == [[0], [0]]
    assert tensor([2, 0, 1], CPU).one_hot(3).tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert tensor([-1, 5], CPU).one_hot(2).tolist() == [[0, 0], [0, 0]]


# --- devices -----------------------------------------------------------------------------------------------------------
def test_a_tensor_moves_between_devices() -> None:
    x = tensor([1.0, 2], CPU)
    wide = x.to(Device("numpy:f64"))
    assert wide.dtype.name == "f64" and wide.to(CPU).dtype.name == "f32" and x.to(CPU) is x
    tracked = x.to(CPU.autodiff().autodiff())
    assert tracked.device == CPU.autodiff().autodiff() and tracked.to(CPU).tolist() == [1, 2]
    leaf = x.to(CPU.autodiff()).require_grad()
    assert (leaf * 2.0).inner().device == CPU and (leaf * 2.0).to(CPU).tolist() == [2, 4]
    assert tensor([True], CPU).to(Device("numpy:f64")).kind is Bool


def test_devices_are_equal_by_what_they_name() -> None:
    assert Device("numpy") == Device("cpu") == Device("numpy:f32") != Device("numpy:f64")
    assert CPU.autodiff() == CPU.autodiff() != CPU and CPU.autodiff().inner() == CPU and CPU.autodiff().is_autodiff
    assert len({CPU, Device("cpu"), CPU.autodiff()}) == 2 and "numpy" in repr(CPU)
    for name, message in (("tpu", "expected wgpu, .*got 'tpu'"), ("numpy:f16", "got numpy:f16")):
        with pytest.raises(DeviceError, match=message):
            Device(name)
    with pytest.raises(DeviceError, match="gpu: expected a wgpu device"):
        _ = CPU.gpu


def test_the_default_device_can_be_set() -> None:
    from wgpu_nn.tensor import device as module

    before = module._default
    try:
        nn.set_default_device("numpy:f64")
        assert tensor([1.0]).dtype.name == "f64" and nn.default_device() == Device("numpy:f64")
        nn.set_default_device(CPU)
        assert nn.zeros(2).device == CPU and nn.rand(2).device == CPU
    finally:
        module._default = before


def test_a_seed_repeats_the_draws_of_a_device_and_its_autodiff() -> None:
    CPU.seed(5)
    first = [nn.rand(3, CPU).tolist(), nn.randn(2, CPU.autodiff()).tolist()]
    CPU.seed(5)
    again = [nn.rand(3, CPU.autodiff()).tolist(), nn.randn(2, CPU).tolist()]
    assert first == again and nn.rand(3, CPU).tolist() != first[0]
