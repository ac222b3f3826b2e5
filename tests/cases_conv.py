"""Rows of the op-case table for convolutions: each window with its forward op and both of its gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tests.case import Arg, Case

Row = tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]  # x, weight, window

PLANES: list[Row] = [
    ((2, 1, 5, 6), (3, 1, 3, 3), {}),
    ((1, 3, 7, 5), (9, 3, 2, 3), {"stride": (2, 1), "padding": ((1, 0), (2, 1))}),
    ((2, 4, 6, 6), (6, 2, 3, 3), {"groups": 2, "padding": ((1, 1), (1, 1))}),
    ((1, 2, 9, 8), (2, 2, 3, 2), {"dilation": (2, 3), "padding": ((0, 2), (1, 0))}),
    ((3, 2, 4, 4), (1, 2, 4, 4), {}),
    ((1, 5, 6, 7), (10, 1, 3, 3), {"groups": 5, "stride": (2, 3)}),
    ((1, 1, 2, 2), (2, 1, 1, 1), {"padding": ((2, 1), (0, 3))}),
    ((0, 1, 4, 4), (2, 1, 3, 3), {}),
    # few output channels a group: strips upright and along rows, windows that slide and that do not, filters of 5 and of 9
    ((2, 3, 9, 11), (3, 1, 3, 3), {"groups": 3, "padding": ((1, 1), (1, 1))}),
    ((1, 2, 3, 19), (4, 1, 2, 5), {"groups": 2, "padding": ((0, 1), (2, 2))}),
    ((2, 2, 17, 12), (2, 1, 3, 9), {"groups": 2, "padding": ((0, 0), (4, 4)), "stride": (2, 1), "dilation": (2, 1)}),
    ((1, 3, 10, 9), (3, 1, 3, 2), {"groups": 3, "dilation": (3, 2), "padding": ((3, 3), (0, 2))}),
    ((1, 11, 5, 6), (2, 11, 3, 3), {"padding": ((1, 1), (1, 1))}),
    ((1, 4, 13, 11), (2, 2, 3, 3), {"groups": 2, "stride": (4, 2), "dilation": (2, 4), "padding": ((2, 0), (1, 5))}),
    # strides of gradients of more than 8 channels, steps that share factors with them
    ((2, 18, 9, 8), (4, 9, 3, 3), {"groups": 2, "stride": (2, 3)}),
    ((1, 9, 11, 13), (3, 9, 3, 2), {"stride": (6, 2), "dilation": (4, 2), "padding": ((1, 0), (2, 2))}),
]
VOLUMES: list[Row] = [
    ((2, 1, 4, 3, 5), (3, 1, 2, 3, 2), {}),
    ((1, 3, 5, 4, 3), (9, 3, 2, 1, 3), {"stride": (2, 1, 3), "padding": ((1, 0), (2, 1), (0, 1))}),
    ((1, 20, 3, 4, 3), (20, 10, 3, 3, 1), {"groups": 2, "padding": ((1, 1), (1, 1), (0, 0)), "stride": (1, 2, 2)}),
    ((2, 2, 5, 6, 4), (2, 2, 2, 3, 2), {"dilation": (3, 2, 2), "padding": ((0, 2), (1, 0), (0, 0))}),
    ((1, 3, 3, 3, 4), (3, 1, 2, 2, 2), {"groups": 3, "dilation": (1, 2, 1), "stride": (1, 1, 2)}),
    ((2, 1, 1, 1, 1), (9, 1, 1, 1, 1), {"padding": ((1, 0), (0, 2), (0, 0)), "stride": (2, 2, 2)}),
    ((1, 2, 1, 2, 1), (2, 2, 3, 3, 3), {"padding": ((1, 1), (2, 1), (1, 2))}),
    ((0, 1, 2, 3, 2), (2, 1, 2, 2, 2), {}),
]


def window(axes: int, **more: Any) -> dict[str, Any]:
    """Return a convolution's attributes: those given, and else the plainest."""
    ones = (1,) * axes
    return {"stride": ones, "padding": ((0, 0),) * axes, "dilation": ones, "groups": 1, **more}


def counts(sizes: Sequence[int], kernel: Sequence[int], given: dict[str, Any]) -> tuple[int, ...]:
    """Return how many windows fit along each axis."""
    rows = zip(sizes, kernel, given["stride"], given["padding"], given["dilation"], strict=True)
    return tuple((n + sum(pads) - d * (k - 1) - 1) // s + 1 for n, k, s, pads, d in rows)


def slices_of(grad: np.ndarray, parts: int, per_slice: int) -> list[np.ndarray]:
    """Return what each slice sees of a gradient [n, channels, ...], the rest being 0: so many parts, of rows cut into some."""
    n, _, *found = grad.shape
    rows = np.arange(n * math.prod(found[:-1])).reshape(n, 1, *found[:-1], 1)
    slices = (rows * parts + np.arange(found[-1]) // -(-found[-1] // parts)) // per_slice
    return [np.where(slices == k, grad, 0).astype(np.float64) for k in range(slices.max() + 1)]


def convolutions() -> list[Case]:
    """Return the rows; gradients also of inputs that reach further than the last window, as transposed layers have."""
    out: list[Case] = []
    for axes, rows in ((2, PLANES), (3, VOLUMES)):
        op = f"conv{axes}d"
        for shape, weight, more in rows:
            given = window(axes, **more)
            g = (shape[0], weight[0], *counts(shape[2:], weight[2:], given))
            x, w = Arg(shape, view="transposed"), Arg(weight, low=-0.5, high=0.5)
            out += [Case(op, (x, w), given), Case(op, (replace(x, view="plain"), w, Arg((weight[0],))), given)]
            out.append(Case(f"{op}_input_grad", (Arg(g), w), {"shape": shape, **given}))
            out.append(Case(f"{op}_weight_grad", (x, Arg(g, view="flipped")), {"shape": weight, **given}))
        longer = window(axes, dilation=(3,) * axes, padding=((1, 2),) * axes)
        g, w, x = (2, 3, *(3, 2, 1)[:axes]), (3, 2, *(2, 1, 3)[:axes]), (2, 2, *(5, 1, 6)[:axes])
        out.append(Case(f"{op}_input_grad", (Arg(g), Arg(w)), {"shape": x, **longer}))
        out.append(Case(f"{op}_weight_grad", (Arg(x), Arg(g)), {"shape": w, **longer}))
    return out
