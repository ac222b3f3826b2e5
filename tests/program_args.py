"""How the arguments of each op are drawn: operands by what its rule asks for, attributes by their type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.cases_conv import counts, window
from tests.programs import KINDS, NUMBERS, Drawer, Ref, kinds_of
from wgpu_nn.dtype import Bool, Float, Int, Scalar
from wgpu_nn.ops import OPS, Category
from wgpu_nn.shape import Shape, size

Args = tuple[Sequence[Ref | Scalar], dict[str, Any]]
Draw = Callable[[Drawer, str], Args]


# --- maps, sources, reductions -----------------------------------------------------------------------------------------
def unary(d: Drawer, op: str) -> Args:
    return [d.value(*kinds_of(op))], {"dtype": d.one(KINDS)} if op == "cast" else {}


def binary(d: Drawer, op: str) -> Args:
    x = d.value(*kinds_of(op))
    pair = [x, d.partner(x)]
    return pair[::-1] if d.chance(3) else pair, {}


def where(d: Drawer, op: str) -> Args:
    mask = d.value(Bool)
    x = d.partner(mask, d.one(KINDS))
    kind = d.spec(x).dtype.kind if isinstance(x, Ref) else Float
    y = d.partner(x, kind) if isinstance(x, Ref) else d.one(NUMBERS[kind])
    return [mask, x, y], {}


def source(d: Drawer, op: str) -> Args:
    if op == "full":
        kind = d.one(KINDS)
        return [d.one(NUMBERS[kind])], {"shape": d.shape(), "dtype": kind}
    if op == "arange":
        return [d.between(-5, 5), d.one((1, 1, 2, -3))], {"shape": d.shape(1, 1)}
    return [d.between(0, 1 << 20), d.between(0, 1 << 20)], {"shape": d.shape()}


def reduction(d: Drawer, op: str) -> Args:
    one = op in ("argmax", "argmin")
    x = d.value(*kinds_of(op), least=1 if one else 0)
    rank = len(d.spec(x).shape)
    axes = (d.below(rank),) if one else tuple(a for a in range(rank) if d.chance(2))
    attrs: dict[str, Any] = {"axes": axes, "keepdim": d.chance(2)}
    return [x], {**attrs, "correction": d.below(2)} if op == "moments" else attrs


# --- views and what moves elements -------------------------------------------------------------------------------------
def ranges(d: Drawer, shape: Shape) -> tuple[tuple[int, int, int], ...]:
    found: list[tuple[int, int, int]] = []
    for n in shape:
        step, start = d.one((1, 1, 2, -1, -2, 3)), d.below(max(n, 1))
        most = 0 if not n else (n - 1 - start) // step + 1 if step > 0 else start // -step + 1
        found.append((start, step, d.between(0, most)))
    return tuple(found)


def view(d: Drawer, op: str) -> Args:
    x = d.value(*KINDS)
    shape = d.spec(x).shape
    if op == "permute":
        left = list(range(len(shape)))
        return [x], {"axes": tuple(left.pop(d.below(len(left))) for _ in shape)}
    if op == "slice":
        return [x], {"ranges": ranges(d, shape)}
    if op == "expand":
        wide = tuple(d.one((1, 2, 3, 5)) if n == 1 else n for n in shape)
        return [x], {"shape": (*d.shape(0, min(2, 8 - len(shape))), *wide)}
    cut, left = list[int](), size(shape)
    while left > 1 and len(cut) < 5:
        cut.append(d.one([k for k in range(1, min(left, 9) + 1) if left % k == 0]))
        left //= cut[-1]
    if d.chance(3):
        cut.append(1)
    return [x], {"shape": (*cut, left) if left != 1 or d.chance(2) else tuple(cut)}


def assign(d: Drawer, op: str) -> Args:
    x = d.value(*KINDS)
    where = ranges(d, d.spec(x).shape)
    value = d.shaped(tuple(c for _, _, c in where), d.spec(x).dtype.kind)
    return [x, value], {"ranges": where}


def join(d: Drawer, op: str) -> Args:
    x = d.value(*KINDS, least=1)
    shape, kind = d.spec(x).shape, d.spec(x).dtype.kind
    axis = d.below(len(shape))
    others = [d.shaped((*shape[:axis], d.one((0, 1, 2, 5)), *shape[axis + 1 :]), kind) for _ in range(d.below(3))]
    return [x, *others], {"axis": axis}


def index_of(d: Drawer, shape: Shape, axis: int) -> Ref:
    inner = tuple(d.between(0, n) if k != axis else d.one((0, 1, 2, 5, 9)) for k, n in enumerate(shape))
    n = shape[axis]
    return d.shaped(inner if n else (0,) * len(shape), Int, -n, max(n - 1, 0))


def gather(d: Drawer, op: str) -> Args:
    x = d.value(*KINDS, least=1)
    axis = d.below(len(d.spec(x).shape))
    return [x, index_of(d, d.spec(x).shape, axis)], {"axis": axis}


def scatter(d: Drawer, op: str) -> Args:
    x = d.value(Float, Int, least=1)
    axis = d.below(len(d.spec(x).shape))
    index = index_of(d, d.spec(x).shape, axis)
    return [x, index, d.shaped(d.spec(index).shape, d.spec(x).dtype.kind)], {"axis": axis}


# --- products and windows ----------------------------------------------------------------------------------------------
def matmul(d: Drawer, op: str) -> Args:
    x = d.value(Float, least=2, most=4)
    *batch, rows, inner = d.spec(x).shape
    kept = tuple(1 if d.chance(3) else n for n in batch[d.between(0, len(batch)) :])
    other = d.one((1, 2, 3, 4, 7, 8, 33))
    if d.chance(3):
        return [d.shaped((*kept, other, rows)), x], {}
    return [x, d.shaped((*kept, inner, other))], {}


def convolution(d: Drawer, op: str) -> Args:
    axes = 3 if "3d" in op else 2
    groups, into, out = d.one((1, 1, 2, 3)), d.one((1, 2, 3, 4, 9)), d.one((1, 2, 3, 4, 8, 17))
    each = lambda *choices: tuple(d.one(choices) for _ in range(axes))
    x = (d.one((1, 2, 2, 0)), groups * into, *each(1, 2, 3, 5, 6, 8))
    weight = (groups * out, into, *each(1, 2, 3, 3))
    more: dict[str, Any] = {"stride": each(1, 1, 2, 3), "dilation": each(1, 1, 2), "groups": groups}
    given = window(axes, **more, padding=tuple((d.below(3), d.below(3)) for _ in range(axes)))
    g = (x[0], weight[0], *(max(n, 0) for n in counts(x[2:], weight[2:], given)))
    if op.endswith("input_grad"):
        return [d.shaped(g), d.shaped(weight)], {"shape": x, **given}
    if op.endswith("weight_grad"):
        return [d.shaped(x), d.shaped(g)], {"shape": weight, **given}
    bias = [d.shaped((weight[0],))] if d.chance(2) else []
    return [d.shaped(x), d.shaped(weight), *bias], given


def pool(d: Drawer, op: str) -> Args:
    x = (d.one((1, 2, 0)), d.one((1, 3)), d.one((1, 4, 7)), d.one((2, 5, 8)))
    kernel = (d.one((1, 2, 3)), d.one((1, 2, 4)))
    pads = tuple((d.between(0, k // 2), d.between(0, k // 2)) for k in kernel)
    attrs: dict[str, Any] = {"kernel": kernel, "stride": (d.one((1, 2, 3)), d.one((1, 2))), "padding": pads}
    included = {"include_pad": d.chance(2)} if op.startswith("avg") else {}
    if not op.endswith("_grad"):
        return [d.shaped(x)], {**attrs, **included}
    g = tuple((n + sum(p) - k) // s + 1 for n, p, k, s in zip(x[2:], pads, kernel, attrs["stride"], strict=True))
    first = d.shaped((*x[:2], *(max(n, 0) for n in g)))
    places = d.add("argmax_pool2d", [d.shaped(x)], attrs) if op == "max_pool2d_grad" else None
    return [first, *([places] if places else [])], {"shape": x, **attrs, **included}


def bins(d: Drawer, op: str) -> Args:
    x, out = (d.one((1, 2, 0)), d.one((1, 3)), d.one((1, 4, 6)), d.one((2, 5, 8))), (d.one((1, 2, 3)), d.one((1, 4, 5)))
    if op.endswith("_grad"):
        return [d.shaped((*x[:2], *out))], {"shape": x}
    return [d.shaped(x)], {"size": out}


# --- rows, orders, losses ----------------------------------------------------------------------------------------------
def along(d: Drawer, op: str) -> Args:
    x = d.value(*kinds_of(op), least=1)
    axis = d.below(len(d.spec(x).shape))
    if op == "argsort":
        return [x], {"axis": axis, "descending": d.chance(2)}
    if op == "argtopk":
        return [x], {"axis": axis, "k": d.between(0, d.spec(x).shape[axis]), "largest": d.chance(2)}
    return [x], {"axis": axis}


def selection(d: Drawer, op: str) -> Args:
    x = d.value(*KINDS, least=1, most=1)
    if op == "tallies":
        return [x], {}
    n = d.spec(x).shape[0]
    ends = d.add("tallies", [x], {})
    split = d.one([k for k in range(1, n + 1) if n % k == 0] or [1])
    count = int(np.count_nonzero(d.exact[x.n]))
    return [x, *([ends] if ends else [])], {"shape": (split, n // split), "count": count}


def loss(d: Drawer, op: str) -> Args:
    x = d.value(Float, least=2, most=2)
    rows, classes = d.spec(x).shape
    targets = d.shaped((rows,), Int, 0, max(classes - 1, 0))
    g = [d.shaped((rows,)) if d.chance(2) else 0.25] if op.endswith("_grad") else []
    return [*g, x, targets], {}


def norm(d: Drawer, op: str) -> Args:
    x = d.value(Float, least=1)
    shape = d.spec(x).shape
    g = [d.shaped(shape)] if op.endswith("_grad") else []
    most = {"layer_norm": 2}.get(op, 1)
    return [*g, x, *(d.shaped(shape[-1:]) for _ in range(d.between(0, most)))], {"epsilon": d.one((1e-5, 0.1))}


def attention(d: Drawer, op: str) -> Args:
    batch, shared, heads = d.one((1, 2, 0)), d.one((1, 2)), d.one((1, 2))
    queries, keys = d.one((1, 3, 5, 66)), d.one((1, 2, 4, 7, 67))
    wide, deep = d.one((1, 3, 4, 8)), d.one((1, 3, 4))
    q, k = (batch, shared * heads, queries, wide), (batch, heads, keys, wide)
    v, g = (*k[:3], deep), (*q[:3], deep)
    mask: list[Ref] = []
    if d.chance(2):  # each query sees its first key
        seen = np.random.default_rng(d.below(99)).random((queries, keys)) < 0.6
        seen[:, 0] = True
        mask = [d.input(seen, Bool)]
    attrs = {"scale": 0.3, "causal": d.chance(2)}
    narrow = lambda *shapes: [d.shaped(s, Float, -1, 1) for s in shapes]
    lse = d.shaped(q[:3], Float, 1.5, 3)
    if op == "attention":
        return [*narrow(q, k, v), *mask], attrs
    if op == "attention_grad_v":
        return [*narrow(g, q, k), lse, *mask], attrs
    return [*narrow(g, q, k, v), lse, *narrow(q[:3]), *mask], attrs


ARGS: dict[str, Draw] = {
    **{name: unary if row.arity == (1, 1) else binary for name, row in OPS.items() if row.category is Category.MAP},
    "where": where,
    **{name: source for name, row in OPS.items() if row.category is Category.SOURCE},
    **{name: reduction for name, row in OPS.items() if row.category is Category.REDUCE},
    **{name: view for name, row in OPS.items() if row.category is Category.VIEW},
    "slice_assign": assign,
    "cat": join,
    "gather": gather,
    "scatter_add": scatter,
    "matmul": matmul,
    **{f"conv{axes}d{kind}": convolution for axes in (2, 3) for kind in ("", "_input_grad", "_weight_grad")},
    **dict.fromkeys(("max_pool2d", "argmax_pool2d", "max_pool2d_grad", "avg_pool2d", "avg_pool2d_grad"), pool),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_avg_pool2d_grad"), bins),
    **dict.fromkeys(("softmax", "log_softmax", "cumsum", "cumprod", "cummax", "cummin", "argsort", "argtopk"), along),
    **dict.fromkeys(("tallies", "places"), selection),
    **dict.fromkeys(("cross_entropy", "cross_entropy_grad"), loss),
    **dict.fromkeys(("layer_norm", "layer_norm_grad", "rms_norm", "rms_norm_grad"), norm),
    **{name: attention for name in OPS if name.startswith("attention")},
}  # fmt: skip


def extend(d: Drawer) -> Ref | None:
    """Append one op, any of the table, on arguments that its rule may take; None if it was refused."""
    op = d.one(tuple(ARGS))
    operands, attrs = ARGS[op](d, op)
    return d.add(op, operands, attrs)
