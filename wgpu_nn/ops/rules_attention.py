"""The shape and kind rules of attention and its gradients; what the ops compute stands at their rows in the table."""

from __future__ import annotations

from collections.abc import Sequence

from wgpu_nn.dtype import Bool, Float
from wgpu_nn.errors import ShapeError
from wgpu_nn.ops.rules import DTypes, Operands, common_dtype, rank_of
from wgpu_nn.ops.spec import Attrs, Operand, Spec, tensor
from wgpu_nn.shape import Shape, broadcast, size

QUERIES = "[batch, heads, queries, features]"
ROWS = "[batch, heads, queries]"
KEYS = "[batch, key heads, keys, features]"


def _projected(op: str, q: Operand, k: Operand, mask: Sequence[Operand]) -> tuple[Spec, Spec]:
    """Return the specs of queries and keys that fit each other and the mask."""
    a, b = rank_of(op, "queries", q, 4, QUERIES), rank_of(op, "keys", k, 4, KEYS)
    got = f"got queries {list(a.shape)} and keys {list(b.shape)}"
    if a.shape[0] != b.shape[0] or a.shape[3] != b.shape[3] or not a.shape[3]:
        raise ShapeError(f"{op}: expected the same batch and the same features, 1 or more, {got}")
    if a.shape[1] != b.shape[1] and (not b.shape[1] or a.shape[1] % b.shape[1]):
        raise ShapeError(f"{op}: expected heads of the queries to be a multiple of those of the keys, {got}")
    wanted = scores(a.shape, b.shape)
    for m in mask:
        shape = tensor(op, m, Bool, Float).shape
        if len(shape) > 4 or broadcast(op, shape, wanted) != wanted:
            raise ShapeError(f"{op}: expected a mask that broadcasts to {list(wanted)}, got {list(shape)}")
    return a, b


def scores(q: Shape, k: Shape) -> Shape:
    """Return the shape of all scores, which nothing stores: [batch, heads, queries, keys]."""
    return (*q[:3], k[2])


def _values(op: str, k: Spec, v: Operand) -> Spec:
    spec = rank_of(op, "values", v, 4, KEYS)
    if spec.shape[:3] != k.shape[:3] or not spec.shape[3]:
        raise ShapeError(
            f"{op}: expected values for each of the keys {list(k.shape)}, of 1 feature or more, got {list(spec.shape)}"
        )
    return spec


def _rows(op: str, q: Spec, *xs: Operand) -> None:
    """Check what has one number for each query."""
    for x in xs:
        if rank_of(op, "a number for each query", x, 3, ROWS).shape != q.shape[:3]:
            raise ShapeError(f"{op}: expected a number for each of the queries {list(q.shape)}, got {x}")


def attention(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    q, k = _projected(op, xs[0], xs[1], xs[3:])
    v = _values(op, k, xs[2])
    # The log-sum-exps behind the results must not be rounded to f16, as gradients take their exponentials.
    return Spec((size(q.shape[:3]) * (v.shape[3] + 1),), common_dtype(op, _floats(xs), dtypes).wide)


def attention_grad(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    """Rule of the gradients of queries and of keys, from g, q, k, v, lse, delta and a mask."""
    q, k = _projected(op, xs[1], xs[2], xs[6:])
    _cotangent(op, xs[0], q, _values(op, k, xs[3]).shape[3])
    _rows(op, q, *xs[4:6])
    return Spec((q if op == "attention_grad_q" else k).shape, common_dtype(op, _floats(xs), dtypes))


def attention_grad_v(op: str, xs: Operands, attrs: Attrs, dtypes: DTypes) -> Spec:
    """Rule of the gradient of values, from g, q, k, lse and a mask."""
    q, k = _projected(op, xs[1], xs[2], xs[4:])
    g = _cotangent(op, xs[0], q, None)
    _rows(op, q, xs[3])
    return Spec((*k.shape[:3], g.shape[3]), common_dtype(op, _floats(xs), dtypes))


def _cotangent(op: str, g: Operand, q: Spec, values: int | None) -> Spec:
    spec = rank_of(op, "a cotangent", g, 4, QUERIES)
    if spec.shape[:3] != q.shape[:3] or spec.shape[3] != (spec.shape[3] if values is None else values):
        wanted = [*q.shape[:3], "features" if values is None else values]
        raise ShapeError(f"{op}: expected a cotangent of shape {wanted}, got {list(spec.shape)}")
    return spec


def _floats(xs: Operands) -> list[Operand]:
    return [x for x in xs if isinstance(x, Spec) and x.dtype.kind is Float]
