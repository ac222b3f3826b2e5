"""The op-case table: for every op its awkward operands, its tolerance with the reason, and where it has a gradient.

One table serves all backends: tests/backend compares them, tests/unit checks the gradients at the same points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tests import cases_attention
from tests.case import VIEWS, WHOLE, Arg, Case, Tolerance
from tests.cases_conv import convolutions
from tests.cases_norm import norm_cases
from tests.cases_order import orders
from wgpu_nn.backends.numpy_routines import argmax_pool2d
from wgpu_nn.dtype import Bool, Float, Int

# One f32 rounding is 6e-8, one unit in the last place (ulp) at most 1.2e-7. "WGSL" is its accuracy table, section 15.7.4.
COPIED = Tolerance(0, 0, "moves elements, or decides", same=True)
ROUNDED = Tolerance(6e-8, 1e-45, "WGSL: correctly rounded", same=True)
DIVIDED = Tolerance(3.6e-7, 0, "WGSL: 2.5 ulp, and a rounding")
ROOTED = Tolerance(8e-7, 0, "WGSL: 2 ulp for the inverse root, 2.5 for what is divided by it")
EXPONENTIAL = Tolerance(3e-6, 1e-7, "WGSL: exp has 3 + 2 |x| ulp, |x| <= 10 here")
LOGARITHM = Tolerance(5e-7, 5e-7, "WGSL: log has 2^-21 absolute near 1, else 3 ulp")
CIRCULAR = Tolerance(0, 5e-4, "WGSL: sin and cos have 2^-11 absolute within pi")
TANGENT = Tolerance(1e-3, 2e-3, "the quotient of two of 2^-11, |x| <= 1 here")
POLYNOMIAL = Tolerance(1.2e-6, 1e-7, "lib/elementary.wgsl: 2e-7 relative on top of division and root")
POWER = Tolerance(1e-5, 0, "WGSL: exp2(y log2 x), with |y log2 x| <= 7 here")
SUMMED = Tolerance(1e-6, 1e-5, "n roundings of sums below 100: n 6e-8 100 at worst, its root in practice")
NEAR_SUM = Tolerance(3e-6, 1e-6, "sums of fewer than 100 exponentials")
NORMAL = Tolerance(1e-5, 2e-3, "WGSL: cos has 2^-11 absolute, times a radius below 6")

TOLERANCES: dict[str, Tolerance] = {
    **dict.fromkeys(("add", "sub", "mul"), ROUNDED),
    **dict.fromkeys(("div", "recip"), DIVIDED),
    **dict.fromkeys(("sqrt", "rsqrt"), ROOTED),
    **dict.fromkeys(("exp", "expm1", "sigmoid", "tanh", "sinh", "cosh", "erf"), EXPONENTIAL),
    **dict.fromkeys(("log", "log1p"), LOGARITHM),
    **dict.fromkeys(("sin", "cos"), CIRCULAR),
    "tan": TANGENT,
    **dict.fromkeys(("asin", "acos", "atan", "atan2"), POLYNOMIAL),
    "pow": POWER,
    "remainder": Tolerance(3e-7, 5e-7, "x - y trunc(x / y), 2^-24 |x| and a rounding"),
    "cast": Tolerance(6e-8, 0, "an Int above 2^24 is rounded to f32", same=True),
    "full": Tolerance(6e-8, 0, "the number is rounded to f32", same=True),
    "prod": Tolerance(1e-5, 0, "130 roundings of one ulp at most"),
    **dict.fromkeys(("sum", "mean", "matmul", "scatter_add"), SUMMED),
    **dict.fromkeys(("conv2d", "conv2d_input_grad", "conv3d", "conv3d_input_grad"), SUMMED),
    **dict.fromkeys(
        ("conv2d_weight_grad", "conv3d_weight_grad"),
        Tolerance(1e-6, 5e-5, "sums over the batch and all positions, below 500"),
    ),
    **dict.fromkeys(("avg_pool2d", "avg_pool2d_grad", "adaptive_avg_pool2d", "adaptive_avg_pool2d_grad"), SUMMED),
    "max_pool2d_grad": SUMMED,
    **dict.fromkeys(("softmax", "log_softmax", "cross_entropy", "cross_entropy_grad"), NEAR_SUM),
    "normal": NORMAL,
    **cases_attention.TOLERANCES,
}


def _flat(*shape: int, **more: Any) -> Arg:
    return Arg(shape, **more)


# --- maps: the layouts are tried on a few ops, as all share one body; the others show their own expression ------------
PAIR = (
    (_flat(7), _flat(7)),
    (_flat(3, 5, view="transposed"), _flat(5)),
    (_flat(2, 1, 4), _flat(3, 1)),
    (_flat(6), 1.5),
    (-0.75, _flat(2, 3)),
)
LAYOUTS = (
    *(_flat(*shape) for shape in ((), (0,), (1,), (3, 0, 2), (1, 1, 1), (13,), (4, 8), (1, 2, 1, 3, 1, 2, 1, 2))),
    *(_flat(5, 3, view=view) for view in VIEWS),
    *(_flat(8, 4, view=view) for view in VIEWS),
    *(_flat(2, 1, 3, 1, 2, 2, 1, 3, view=view) for view in ("transposed", "strided", "expanded")),
)
BROADCAST = (
    (_flat(4, 1, 8, view="flipped"), _flat(3, 1)),
    (_flat(1, 2, 1, 3, 1, 2, 1, 2), _flat(2, 1, 3, 1, 2, 1, 2, 1)),
    (_flat(4, 4), _flat(1)),
    (_flat(4, 4, view="offset"), _flat(1, 1, view="offset")),
    (_flat(0, 3), _flat(1, 3)),
    (_flat(), _flat(2, 2)),
    (_flat(3, 4, view="repeated"), _flat(3, 4, view="expanded")),
)


def _as(args: Sequence[Any], **changes: Any) -> tuple[Any, ...]:
    return tuple(replace(a, **changes) if isinstance(a, Arg) else a for a in args)


DOMAINS: dict[str, tuple[float, float]] = {
    "exp": (-10, 10), "expm1": (-2, 5), "log": (0.01, 20), "log1p": (-0.9, 5), "sqrt": (0.1, 9), "rsqrt": (0.1, 9),
    "recip": (0.2, 3), "sin": (-3.1, 3.1), "cos": (-3.1, 3.1), "tan": (-1, 1), "tanh": (-5, 5), "sigmoid": (-9, 9),
    "erf": (-3, 3), "asin": (-0.95, 0.95), "acos": (-0.95, 0.95), "atan": (-9, 9), "sinh": (-4, 4), "cosh": (-4, 4),
    "floor": (-4, 4), "ceil": (-4, 4), "round": (-4, 4), "is_nan": (-1, 1), "is_inf": (-1, 1),
}  # fmt: skip


def _maps() -> list[Case]:
    out: list[Case] = []
    for op, (low, high) in DOMAINS.items():
        out += [Case(op, (Arg((17,), Float, low, high),)), Case(op, (Arg((5, 3), Float, low, high, "transposed"),))]
    out += [Case("neg", (x,)) for x in LAYOUTS]
    for op in ("neg", "abs", "sign", "relu"):
        out += [Case(op, (_flat(17),)), Case(op, (Arg((3, 7), Int, -5, 5, "flipped"),))]
    for op in ("add", "sub", "mul", "maximum", "minimum"):
        out += [Case(op, pair) for pair in PAIR]
        out += [Case(op, (Arg((9,), Int, -7, 7), Arg((2, 9), Int, -7, 7))), Case(op, (Arg((6,), Int, -7, 7), 3))]
    out += [Case("add", (x, x)) for x in LAYOUTS] + [Case("sub", pair) for pair in BROADCAST]
    for op, away in (("div", 0.5), ("remainder", 0.7), ("floor_div", 0.7)):
        out += [Case(op, (_flat(3, 5), Arg((5,), Float, away, 3))), Case(op, (_flat(9), Arg((9,), Float, -3, -away)))]
        out += [Case(op, (_flat(7), 1.25)), Case(op, (2.5, Arg((7,), Float, away, 3)))]
    for op in ("remainder", "floor_div"):
        out += [Case(op, (Arg((31,), Int, -9, 9), Arg((31,), Int, -4, -1))), Case(op, (Arg((31,), Int, -9, 9), 4))]
    positive = Arg((2, 7), Float, 0.2, 3)
    out += [Case("pow", (positive, _flat(7))), Case("pow", (positive, 3)), Case("pow", (2.0, _flat(7)))]
    out += [Case("pow", (_flat(7), 2)), Case("pow", (positive, 0.5))]
    out += [Case("atan2", pair) for pair in PAIR]
    for op in ("eq", "ne", "lt", "le", "gt", "ge"):
        out += [Case(op, (Arg((4, 9), Int, 0, 2), Arg((9,), Int, 0, 2))), Case(op, (_flat(8), 0.0)), Case(op, PAIR[2])]
    for op in ("logical_and", "logical_or", "logical_xor", "eq", "ne"):
        out += [Case(op, _as(pair, kind=Bool)) for pair in PAIR[:3]]
    out += [Case("logical_not", (Arg(s, Bool, view=v),)) for s, v in (((9,), "plain"), ((3, 4), "transposed"))]
    for kind in (Float, Int, Bool):
        out.append(Case("where", (Arg((3, 4), Bool), Arg((4,), kind), Arg((3, 1), kind))))
        for target in (Float, Int, Bool):
            out.append(Case("cast", (Arg((11,), kind, -2.9, 2.9),), {"dtype": target}))
    out += [Case("where", (Arg((5,), Bool), _flat(2, 5), 0.0)), Case("where", (Arg((5,), Bool), -1, Arg((5,), Int)))]
    out += [Case("where", (Arg((2, 3), Bool, view="strided"), 2.0, 0.5))]
    return out


def _sources() -> list[Case]:
    out = [
        Case("full", (v,), {"shape": s, "dtype": k})
        for v, k in ((0.1, Float), (-3, Int), (True, Bool))
        for s in ((), (5,), (2, 0))
    ]
    out += [Case("arange", (a, b), {"shape": (n,)}) for a, b, n in ((0, 1, 7), (5, -2, 4), (-3, 3, 0), (2, 5, 1))]
    out += [Case(op, (7, 3), {"shape": s}) for op in ("uniform", "normal") for s in ((), (1,), (0,), (5, 3), (257,))]
    out += [Case("uniform", (-1, 2**31 - 1), {"shape": (8,)})]
    return out


def _reductions() -> list[Case]:
    layouts = [
        (_flat(), ()), (_flat(1), (0,)), (_flat(7), (0,)), (_flat(3, 5), (1,)), (_flat(3, 5), (0,)),
        (_flat(3, 5), (0, 1)),
        (_flat(2, 3, 4, view="transposed"), (0, 2)), (_flat(2, 3, 4, view="flipped"), (1,)),
        (_flat(4, 3, view="expanded"), (0,)), (_flat(2, 2, 1, 2, 3, 1, 2, 2), (1, 3, 6)), (_flat(3, 0), (0,)),
        (_flat(5, 130), (1,)), (_flat(2, 7, view="strided"), (1,)), (_flat(130, 5), (0,)),
    ]  # fmt: skip
    out: list[Case] = []
    for op in ("sum", "mean", "prod", "max", "min"):
        kinds = (Float,) if op == "mean" else (Float, Int)
        for k, (x, axes) in enumerate(layouts):
            kind = kinds[k % len(kinds)]
            bounds = {"low": 0.9, "high": 1.1} if op == "prod" and kind is Float else {"low": -2, "high": 2}
            out.append(Case(op, (replace(x, kind=kind, **bounds),), {"axes": axes, "keepdim": k % 3 == 0}))
        out.append(Case(op, (_flat(3, 5, low=0.5),), {"axes": (1,), "keepdim": False}))
    out += [Case(op, (_flat(3, 0),), {"axes": (1,), "keepdim": True}) for op in ("sum", "prod")]
    out += [
        Case("sum", (_flat(2500),), {"axes": (0,), "keepdim": False}, tolerance=Tolerance(1e-6, 1e-3, "sums of 5000"))
    ]
    for op in ("any", "all"):
        out += [
            Case(op, (replace(x, kind=Bool),), {"axes": axes, "keepdim": k % 2 == 0})
            for k, (x, axes) in enumerate(layouts)
        ]
        out.append(Case(op, (Arg((3, 0), Bool),), {"axes": (1,), "keepdim": False}))
    for op in ("argmax", "argmin"):
        for k, (x, axes) in enumerate(layouts):
            if len(axes) == 1:
                out.append(Case(op, (replace(x, kind=(Float, Int)[k % 2]),), {"axes": axes, "keepdim": k % 3 == 0}))
    return out


def _views() -> list[Case]:
    return [
        *(Case("reshape", (x,), {"shape": s}) for x, s in (
            (_flat(6), (2, 3)), (_flat(2, 3, view="transposed"), (6,)), (_flat(4, 6, view="transposed"), (4, 2, 3)),
            (_flat(), (1, 1)), (_flat(0, 3), (3, 0)), (_flat(2, 3, view="flipped"), (3, 2)),
            (_flat(4, 3, view="expanded"), (12,)),
            (_flat(2, 2, 2, view="strided"), (4, 2)))),
        *(Case("permute", (x,), {"axes": a}) for x, a in ((_flat(2, 3), (1, 0)),
        (_flat(2, 3, 4, view="strided"), (2, 0, 1)), (_flat(), ()))),
        *(Case("expand", (x,), {"shape": s}) for x, s in (
            (_flat(1, 3), (4, 3)), (_flat(), (2, 2)), (_flat(3, 1, view="offset"), (2, 3, 5)), (_flat(1, 2),
            (0, 2)))),
        *(Case("slice", (x,), {"ranges": r}) for x, r in (
            (_flat(7), ((5, -2, 3),)), (_flat(4, 5, view="transposed"), ((1, 1, 2), (4, -1, 5))), (_flat(3, 3),
            ((0, 1, 0), (2, 1, 1))))),
        *(Case("slice_assign", (x, v), {"ranges": r}) for x, v, r in (
            (_flat(7), _flat(3), ((5, -2, 3),)), (_flat(4, 5, view="flipped"), _flat(2, 5, view="expanded"),
            ((1, 2, 2), (0, 1, 5))),
            (_flat(3, 2), _flat(0, 2), ((0, 1, 0), (0, 1, 2))), (_flat(), _flat(), ()),
            (Arg((5,), Bool), Arg((2,), Bool), ((1, 3, 2),)))),
        *(Case("cat", xs, {"axis": a}) for xs, a in (
            ((_flat(2, 3), _flat(2, 4), _flat(2, 1)), 1), ((_flat(2, 3, view="transposed"), _flat(0, 3)), 0),
            ((_flat(5),), 0),
            ((Arg((3,), Int), Arg((4,), Int, view="flipped")), 0), ((Arg((2, 3), Bool), Arg((2, 1), Bool)), 1))),
    ]  # fmt: skip


def _products() -> list[Case]:
    pairs = [
        (_flat(1, 1), _flat(1, 1)), (_flat(3, 5), _flat(5, 7)), (_flat(8, 4), _flat(4, 8)),
        (_flat(9, 17), _flat(17, 12)),
        (_flat(0, 3), _flat(3, 2)), (_flat(2, 0), _flat(0, 3)), (_flat(5, 4, view="transposed"), _flat(4, 4)),
        (_flat(4, 8), _flat(8, 5, view="transposed")), (_flat(13, 12), _flat(12, 8, view="transposed")),
        (_flat(2, 3, 4), _flat(4, 5)), (_flat(2, 1, 3, 4), _flat(5, 4, 2)),
        (_flat(3, 4, view="strided"), _flat(4, 4, view="flipped")),
        (_flat(4, 4, view="offset"), _flat(4, 4, view="offset")),
        (_flat(3, 4, 4, view="expanded"), _flat(3, 4, 8, view="expanded")),
        (_flat(70, 9), _flat(9, 67)), (_flat(4, 300, low=0, high=1), _flat(300, 4, low=-1, high=1)),
    ]  # fmt: skip
    return [Case("matmul", pair) for pair in pairs]


def _window(kernel: Any = None, stride: Any = (1, 1), padding: Any = ((0, 0), (0, 0)), **more: Any) -> dict[str, Any]:
    found = {"stride": stride, "padding": padding, **more}
    return found if kernel is None else {"kernel": kernel, **found}


def _pools() -> list[Case]:
    rows = [  # shape, window, its result's height and width
        ((2, 3, 6, 7), _window((2, 2), (2, 2)), (3, 3)),
        ((1, 2, 5, 5), _window((3, 2), (1, 2), ((1, 1), (1, 0))), (5, 3)),
        ((1, 1, 4, 4), _window((4, 4), (1, 1)), (1, 1)),
        ((2, 1, 7, 3), _window((1, 3), (3, 1), ((0, 0), (1, 1))), (3, 3)),
    ]
    out: list[Case] = []
    for shape, window, size in rows:
        x, g = Arg(shape, view="transposed"), Arg((*shape[:2], *size))
        out += [Case(op, (x,), window) for op in ("max_pool2d", "argmax_pool2d")]
        places = replace(g, kind=Int, given=lambda rng, s=shape, w=window: argmax_pool2d(rng.random(s), **w))
        out.append(Case("max_pool2d_grad", (g, places), {"shape": shape, **window}))
        for include in (True, False):
            out.append(Case("avg_pool2d", (x,), {**window, "include_pad": include}))
            out.append(Case("avg_pool2d_grad", (g,), {"shape": shape, **window, "include_pad": include}))
    for shape, size in (
        ((2, 3, 24, 24), (8, 8)),
        ((1, 2, 7, 5), (3, 5)),
        ((2, 1, 3, 4), (5, 7)),
        ((1, 2, 6, 5), (1, 1)),
    ):
        out.append(Case("adaptive_avg_pool2d", (Arg(shape, view="flipped"),), {"size": size}))
        out.append(Case("adaptive_avg_pool2d_grad", (Arg((*shape[:2], *size)),), {"shape": shape}))
    return out


def _indices() -> list[Case]:
    out: list[Case] = []
    rows = [((7,), (4,), 0), ((5, 3), (5, 6), 1), ((4, 5), (2, 3), 0), ((3, 4, 2), (3, 9, 2), 1), ((3, 4),
        (3, 0), 1), ((2, 2, 1, 2, 1, 3, 1, 2), (2, 5, 1, 2, 1, 3, 1, 2), 1)]  # fmt: skip
    for shape, named, axis in rows:
        index = Arg(named, Int, -shape[axis], shape[axis] - 1)
        for view in ("plain", "flipped", "transposed"):
            out.append(Case("gather", (Arg(shape, view=view), replace(index, view=view)), {"axis": axis}))
            source = Arg(named, view=view)
            out.append(Case("scatter_add", (Arg(shape, view=view), index, source), {"axis": axis}))
    # One index for each row: copied by fours where the row allows it.
    whole = [
        ((5, 8), (3, 8), 0),
        ((5, 2, 8), (7, 2, 8), 0),
        ((2, 5, 4), (2, 3, 4), 1),
        ((5, 6), (9, 6), 0),
        ((1, 4), (2, 4), 0),
    ]
    for shape, named, axis in whole:
        index = Arg(named, Int, -shape[axis], shape[axis] - 1, "repeated")
        views = ("plain", "offset", "flipped", "transposed", "expanded", "strided")
        out += [Case("gather", (Arg(shape, view=view), index), {"axis": axis}) for view in views]
    out += [
        Case("gather", (Arg((3, 4), kind), Arg((2, 4), Int, 0, 2, "repeated")), {"axis": 0}) for kind in (Int, Bool)
    ]
    out.append(Case("gather", (Arg((5, 3), Int), Arg((5, 3), Int, 0, 2)), {"axis": 1}))
    out.append(Case("gather", (Arg((5, 3), Bool), Arg((2, 3), Int, 0, 4)), {"axis": 0}))
    out.append(Case("scatter_add", (Arg((3,), Int), Arg((9,), Int, 0, 2), Arg((9,), Int)), {"axis": 0}))
    return out


def _rows() -> list[Case]:
    rows = [(_flat(5), 0), (_flat(3, 7), 1), (_flat(3, 7, view="transposed"), 0),
        (_flat(2, 3, 4, view="strided"), 1), (_flat(2, 0), 1), (_flat(0, 2), 1), (_flat(3, 1), 1),
        (_flat(2, 90), 1), (_flat(4, 3, view="expanded"), 0), (_flat(3, 64, view="offset"), 1),
        (_flat(2, 1100), 1)]  # fmt: skip
    out = [Case(op, (x,), {"axis": axis}) for op in ("softmax", "log_softmax") for x, axis in rows]
    for shape, view in (
        ((5, 3), "plain"),
        ((1, 1), "plain"),
        ((4, 7), "transposed"),
        ((6, 2), "strided"),
        ((0, 3), "plain"),
        ((70, 10), "flipped"),
        ((3, 4), "expanded"),
    ):
        x, targets = Arg(shape, view=view), Arg(shape[:1], Int, 0, shape[1] - 1, "flipped")
        out.append(Case("cross_entropy", (x, targets)))
        out += [Case("cross_entropy_grad", (g, x, targets)) for g in (_flat(shape[0]), 0.25)]
    return out


def _table() -> dict[str, list[Case]]:
    found: dict[str, list[Case]] = {}
    families = (_maps, _sources, _reductions, _views, _products, convolutions, _pools, _indices, _rows, orders)
    families += (cases_attention.attentions, norm_cases)
    for case in (c for family in families for c in family()):
        rows = found.setdefault(case.op, [])
        tolerance = TOLERANCES.get(case.op, WHOLE) if case.tolerance is WHOLE else case.tolerance
        rows.append(replace(case, name=f"{case.op}-{len(rows)}", tolerance=tolerance))
    return found


TABLE = _table()
CASES = [case for rows in TABLE.values() for case in rows]
