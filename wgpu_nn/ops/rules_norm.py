"""The shape and kind rules of moments and of normalised rows."""

from __future__ import annotations

from wgpu_nn.dtype import Float
from wgpu_nn.errors import ShapeError
from wgpu_nn.ops.rules import DTypes, Operands, reduction
from wgpu_nn.ops.spec import Attrs, Rule, Spec, tensor


def moments(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    """Means and variances side by side: [2, ...kept axes]."""
    kept = reduction(Float)(op, xs, attrs, dtypes)
    return Spec((2, *kept.shape), kept.dtype)


def normalised(like: int) -> Rule:
    """Rule of rows along the last axis, with as many weights; the result is like operand ``like``."""

    def rule(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
        x = tensor(op, xs[like], Float)
        if not x.shape:
            raise ShapeError(f"{op}: expected rows along the last axis, got a tensor of rank 0; reshape it")
        for g in xs[:like]:
            if tensor(op, g, Float).shape != x.shape:
                raise ShapeError(f"{op}: expected a gradient of the shape {list(x.shape)}, got {g}")
        for w in xs[like + 1 :]:
            if tensor(op, w, Float).shape != x.shape[-1:]:
                raise ShapeError(f"{op}: expected weights of the shape {list(x.shape[-1:])}, got {w}")
        return x

    return rule
