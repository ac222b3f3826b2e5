"""Scores and class targets of any layout, checked and flattened: what classification metrics start from."""

from __future__ import annotations

import numpy as np

from wgpu_nn.dtype import Bool, Float, Int
from wgpu_nn.errors import ConfigError, KindError, ShapeError
from wgpu_nn.shape import Shape
from wgpu_nn.tensor import Tensor, tensor


def check_field(name: str, field: str, found: object, *expected: object) -> None:
    """Raise ConfigError unless a metric's field has one of the ``expected`` values."""
    if found not in expected:
        given = " or ".join(repr(e) for e in expected)
        raise ConfigError(f"{name}: expected {field} {given}, got {found!r}")


def class_scores(name: str, outputs: Tensor, targets: Tensor, axis: int = -1) -> int:
    """Return the axis of the classes in ``outputs``, whose other axes must be those of the Int ``targets``.

    Raises ShapeError and KindError where the two do not fit.
    """
    at = axis + outputs.rank if axis < 0 else axis
    if not 0 <= at < outputs.rank or _without(outputs.shape, at) != targets.shape or not outputs.shape[at]:
        raise ShapeError(
            f"{name}: expected outputs of a score for each class on axis {axis}, and targets of the other axes, got "
            f"{list(outputs.shape)} and {list(targets.shape)}"
        )
    if outputs.kind is not Float or targets.kind is not Int:
        raise KindError(f"{name}: expected Float outputs and Int targets, got {outputs.kind} and {targets.kind}")
    return at


def score_rows(name: str, outputs: Tensor, targets: Tensor, axis: int = -1) -> tuple[Tensor, Tensor]:
    """Return scores [n, classes] and targets [n] of outputs that have the classes on ``axis``; raises as above."""
    at = class_scores(name, outputs, targets, axis)
    rows = outputs if at == outputs.rank - 1 else outputs.movedim(at, outputs.rank - 1)
    return rows.reshape(targets.size, outputs.shape[at]), targets.reshape(targets.size)


def paired(name: str, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return outputs and targets of one shape; [n, 1] beside [n] counts as [n], and Bool targets as 0 and 1.

    Raises ShapeError and KindError where the two do not fit.
    """
    if outputs.rank == targets.rank + 1 and outputs.shape[-1] == 1:
        outputs = outputs.reshape(targets.shape)
    if outputs.shape != targets.shape:
        raise ShapeError(
            f"{name}: expected outputs and targets of one shape, got {list(outputs.shape)} and {list(targets.shape)}"
        )
    if outputs.kind is not Float:
        raise KindError(f"{name}: expected Float outputs, got {outputs.kind}; convert them with .float()")
    return outputs, targets.int() if targets.kind is Bool else targets


def strayed(targets: Tensor, classes: int) -> Tensor:
    """Return which class targets are none of 0 .. classes - 1."""
    return (targets < 0) | (targets >= classes)


def not_binary(targets: Tensor) -> Tensor:
    """Return which targets, Ints or Floats, are neither 0 nor 1."""
    return (targets != 0) & (targets != 1)


def is_ignored(targets: Tensor, ignore: int | None) -> Tensor | None:
    """Return which targets do not count, or None if all do."""
    return None if ignore is None else targets == ignore


def tally(verdicts: Tensor, kinds: int) -> Tensor:
    """[n, ...] Int -> [kinds, ...] Int: how many of the n are of each kind, 0 .. kinds - 1.

    In a captured step it is one launch: kinds are a constant, and the comparison runs inside of the sum.
    """
    column = tensor(np.arange(kinds).reshape(kinds, *(1,) * verdicts.rank), verdicts.device)
    return (verdicts.unsqueeze(0) == column).where(1, 0).sum(1)


def _without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]
