"""The case table's rows of scans, sorts, selections, and of scatters with many senders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tests.case import Arg, Case, Tolerance, f32, i32
from wgpu_nn.dtype import Bool, Float, Int
from wgpu_nn.ops.rules_order import SPAN

PARTIAL = Tolerance(1e-6, 1e-5, "130 roundings of sums below 100 at worst")
PRODUCTS = Tolerance(1e-5, 0, "130 roundings of one ulp at most")
EXACT = Tolerance(0, 0, "sums of whole numbers below 2^24 are exact in any order", same=True)
SPECIAL = f32([np.nan, 0.0, -0.0, np.inf, -1.5, np.nan, -np.inf, 1e-40, -1e-40, 3.0, -0.0, 0.0, 3.0, -7e30])

# Operand and axis: every layout, and lengths beyond what one invocation or one workgroup takes at once.
ROWS = [
    (Arg((5,)), 0), (Arg((1,)), 0), (Arg((3, 7)), 1), (Arg((3, 7), view="transposed"), 0), (Arg((0,)), 0),
    (Arg((2, 3, 4), view="flipped"), 1), (Arg((4, 3), view="expanded"), 0), (Arg((3, 4), view="repeated"), 1),
    (Arg((2, 2, 1, 2, 3, 1, 2, 2)), 4), (Arg((3, 0)), 1), (Arg((0, 3)), 1), (Arg((5, 130)), 1), (Arg((130, 5)), 0),
    (Arg((2, 70), view="strided"), 1), (Arg((70, 20), view="offset"), 0),
]  # fmt: skip
LONG = [
    (Arg((5000,), Int, -9, 9), 0), (Arg((2, 2100), Int, -9, 9), 1), (Arg((2100, 20), Int, -9, 9, "flipped"), 0),
    (Arg((2300, 3), Int, -9, 9), 0),
]  # fmt: skip


def _whole(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda rng: rng.integers(-9, 9, shape, endpoint=True).astype(np.float32)


def _scans() -> list[Case]:
    out: list[Case] = []
    for op in ("cumsum", "cumprod", "cummax", "cummin"):
        how = {"cumsum": PARTIAL, "cumprod": PRODUCTS}.get(op, EXACT)
        for k, (x, axis) in enumerate(ROWS):
            kind = Int if k % 3 == 2 else Float
            low, high = (0.9, 1.1) if op == "cumprod" and kind is Float else (-1, 1)
            row = Case(op, (replace(x, kind=kind, low=low, high=high),), {"axis": axis}, tolerance=how)
            out.append(row if kind is Float else replace(row, tolerance=EXACT))
        out += [Case(op, (replace(x, low=-1, high=1),), {"axis": axis}, tolerance=EXACT) for x, axis in LONG]
    out.append(Case("cumsum", (Arg((9000,), given=_whole(9000)),), {"axis": 0}, grad=False, tolerance=EXACT))
    for zeros in ([0, 2], [0, 0, 1], [1, 0, 2, 0, 3], [3, 2, 0]):  # its gradient divides by nothing
        out.append(
            Case("cumprod", (Arg((len(zeros),), given=lambda rng, z=zeros: f32(z)),), {"axis": 0}, tolerance=EXACT)
        )
    for op in ("cummax", "cummin"):
        x = Arg((14,), given=lambda rng: SPECIAL[::-1].copy())
        out.append(Case(op, (x,), {"axis": 0}, grad=False, tolerance=EXACT))
    return out


def _sorts() -> list[Case]:
    out: list[Case] = []
    special = Arg((42,), given=lambda rng: np.tile(SPECIAL, 3))
    rows = [(special, 0), *ROWS, *LONG, (Arg((4100,)), 0), (Arg((300, 2), view="transposed"), 0)]
    rows.append((Arg((2800,), given=lambda rng: np.tile(SPECIAL, 200)), 0))
    for k, (x, axis) in enumerate(rows):
        x = x if x.given or x.kind is Int else replace(x, kind=(Float, Int)[k % 2])
        for descending in (False, True):
            out.append(Case("argsort", (x,), {"axis": axis, "descending": descending}))
        n = x.shape[axis]
        for k in sorted({0, 1, 3, n // 2, n}):
            if k <= n:
                out.append(Case("argtopk", (x,), {"axis": axis, "k": k, "largest": k % 2 == 1}))
    return out


def _selections() -> list[Case]:
    """Slices of which each is full, empty or mixed; every kind, and views of rank 1."""
    out: list[Case] = []
    mixed = np.random.default_rng(5).integers(0, 2, 2 * SPAN + 77).astype(np.int32)
    mixed[:SPAN] = 0
    for x, view, shape in (
        (SPECIAL, "plain", (7, 2)),
        (mixed, "plain", (mixed.size,)),
        (mixed, "flipped", (mixed.size,)),
        (np.ones(SPAN, np.int32), "plain", (2, SPAN // 4, 2)),
        (f32(mixed[-2 * SPAN :]), "strided", (2, 2, 2, SPAN // 16, 2, 1, 2)),
        (mixed[-154:] > 0, "plain", (11, 7, 2)),
        (f32([]), "plain", (3, 0)),
        (f32([0.0]), "plain", ()),
        (i32([-3]), "plain", ()),
    ):
        uploaded = np.repeat(x, 2).take(range(2 * x.size + 1), mode="clip") if view == "strided" else x
        seen = {"plain": uploaded, "flipped": uploaded[::-1], "strided": uploaded[1::2]}[view]
        kind = {"f": Float, "i": Int, "b": Bool}[x.dtype.kind]
        arg = Arg((x.size,), kind, view=view, given=lambda rng, u=uploaded: u.copy())
        ends = i32([np.count_nonzero(seen[: n + SPAN]) for n in range(0, x.size, SPAN)])
        out.append(Case("tallies", (arg,)))
        for count in {0, *ends[-1:].tolist()}:
            given = Arg(ends.shape, Int, given=lambda rng, e=ends: e.copy())
            out.append(Case("places", (arg, given), {"shape": shape, "count": count}))
    return out


def _scatters() -> list[Case]:
    """Enough senders that they are sorted by target: a column each its own index, and one for all columns."""
    out: list[Case] = []
    for shape, named, axis, view in (
        ((40, 64), (2000, 64), 0, "plain"),
        ((40, 64), (2000, 64), 0, "repeated"),
        ((70, 2, 40), (70, 2, 800), 2, "plain"),
        ((3,), (40_000,), 0, "flipped"),
        ((21_000,), (200,), 0, "plain"),
    ):
        x, index = Arg(shape, Int, -9, 9), Arg(named, Int, -shape[axis], shape[axis] - 1, view)
        out.append(Case("scatter_add", (x, index, Arg(named, Int, -9, 9)), {"axis": axis}))
        senders = Arg(named, given=_whole(*named))
        x = Arg(shape, given=_whole(*shape))
        out.append(Case("scatter_add", (x, index, senders), {"axis": axis}, grad=False, tolerance=EXACT))
    return out


def orders() -> list[Case]:
    return [*_scans(), *_sorts(), *_selections(), *_scatters()]
