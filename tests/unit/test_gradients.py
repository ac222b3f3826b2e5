"""Gradient rules against finite differences in double precision, first and second order, at the points of the case table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tests.cases import CASES, VIEWS, Arg, Case
from wgpu_nn import Device, Tensor, tensor
from wgpu_nn.autodiff.rules import NO_GRADIENT
from wgpu_nn.dtype import Float

STEP = 1e-5  # central differences: the error is STEP^2 and the rounding 1e-16 / STEP, both far below the tolerance
TOLERANCE: dict[str, Any] = {"rtol": 2e-6, "atol": 2e-7}
Arrays = Sequence[np.ndarray | float]
# Pieces of zero slope: their differences are 0 but where a step crosses a jump, which the drawn points do not.
SMOOTH = [
    c
    for c in CASES
    if c.op not in NO_GRADIENT and c.grad and any(isinstance(a, Arg) and a.kind is Float for a in c.args)
]


def is_float(case: Case, i: int) -> bool:
    arg = case.args[i]
    return isinstance(arg, Arg) and arg.kind is Float


def weighted(case: Case, device: Device, operands: Sequence[Tensor | float]) -> Tensor | None:
    """Return the sum of the op's result times fixed weights, or None if the result is no Float."""
    backend = device.backend
    handles: list[object] = []
    for arg, x in zip(case.args, operands, strict=True):
        if isinstance(arg, Arg) and isinstance(x, Tensor):
            handle = x.handle
            for op, attrs in VIEWS[arg.view](arg.shape)[1]:
                handle = backend.run(op, handle, **attrs)
            handles.append(handle)
        else:
            handles.append(x)
    out = Tensor(device, backend.run(case.op, *handles, **case.attributes(backend)))
    if out.kind is not Float:
        return None
    weights = np.random.default_rng(1).uniform(-1, 1, out.shape)
    return (out * tensor(weights, device)).sum()


def leaves(case: Case, device: Device, arrays: Arrays) -> list[Tensor | float]:
    made: list[Tensor | float] = []
    for i, (arg, x) in enumerate(zip(case.args, arrays, strict=True)):
        if isinstance(arg, Arg):
            t = tensor(np.asarray(x), device, arg.kind)
            made.append(t.require_grad() if is_float(case, i) and device.is_autodiff else t)
        else:
            made.append(arg)
    return made


def value(case: Case, exact: Device, arrays: Arrays) -> float:
    found = weighted(case, exact, leaves(case, exact, arrays))
    assert found is not None
    return float(found)


def gradient(case: Case, device: Device, arrays: Arrays) -> dict[int, np.ndarray]:
    operands = leaves(case, device.autodiff(), arrays)
    loss = weighted(case, device.autodiff(), operands)
    assert loss is not None
    grads = loss.backward()
    return {
        i: grads[x].numpy()
        for i, x in enumerate(operands)
        if isinstance(x, Tensor) and is_float(case, i) and x in grads
    }


def stepped(arrays: Arrays, i: int, by: np.ndarray) -> list[np.ndarray | float]:
    return [x + by if k == i else x for k, x in enumerate(arrays)]


def directions(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Return every axis of a small space, and three directions of a large one."""
    n = int(np.prod(shape))
    if 0 < n <= 24:
        return [row.reshape(shape) for row in np.eye(n)]
    return list(np.random.default_rng(2).standard_normal((3, *shape)))


def doubles(case: Case) -> list[np.ndarray | float]:
    return [
        x.astype(np.float64) if isinstance(x, np.ndarray) and is_float(case, i) else x
        for i, x in enumerate(case.draw())
    ]


@pytest.mark.parametrize("case", SMOOTH, ids=lambda c: c.name)
def test_a_gradient_is_the_slope(case: Case, exact: Device) -> None:
    arrays = doubles(case)
    if weighted(case, exact, leaves(case, exact, arrays)) is None:
        return  # a cast to Int or Bool
    found = gradient(case, exact, arrays)
    for i, x in enumerate(arrays):
        if not is_float(case, i):
            continue
        assert isinstance(x, np.ndarray) and found[i].shape == x.shape
        for d in directions(x.shape):
            slope = (
                value(case, exact, stepped(arrays, i, STEP * d)) - value(case, exact, stepped(arrays, i, -STEP * d))
            ) / (2 * STEP)
            np.testing.assert_allclose((found[i] * d).sum(), slope, **TOLERANCE, err_msg=f"operand {i}")


@pytest.mark.parametrize("case", SMOOTH, ids=lambda c: c.name)
def test_a_second_derivative_is_the_slope_of_the_first(case: Case, exact: Device) -> None:
    arrays = doubles(case)
    if weighted(case, exact, leaves(case, exact, arrays)) is None:
        return
    rng = np.random.default_rng(3)
    outer = exact.autodiff().autodiff()
    operands = leaves(case, outer, arrays)
    loss = weighted(case, outer, operands)
    assert loss is not None
    grads = loss.backward()
    floats = {i: x for i, x in enumerate(operands) if isinstance(x, Tensor) and is_float(case, i)}
    along = {i: rng.uniform(-1, 1, x.shape) for i, x in floats.items()}

    def dot(found: dict[int, np.ndarray]) -> float:
        return sum(float((along[i] * g).sum()) for i, g in found.items())

    total = None
    for i, x in floats.items():
        part = (grads[x] * tensor(along[i], exact.autodiff())).sum()
        total = part if total is None else total + part
    assert total is not None
    second = total.backward() if total.handle.node is not None else None
    for i, x in floats.items():
        shape = x.shape
        # A first derivative that does not depend on an operand has no path to it, and a slope of 0.
        found = second.get(x.inner()) if second is not None else None
        mine = np.zeros(shape) if found is None else found.numpy()
        d = rng.uniform(-1, 1, shape)
        up, down = (dot(gradient(case, exact, stepped(arrays, i, s * d))) for s in (STEP, -STEP))
        np.testing.assert_allclose(
            (mine * d).sum(), (up - down) / (2 * STEP), rtol=1e-5, atol=2e-6, err_msg=f"operand {i}"
        )
