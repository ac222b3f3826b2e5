"""Rows of the case table for attention and its gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tests.case import Arg, Case, Shape, Tolerance
from wgpu_nn.dtype import Bool, Float

WEIGHTED = Tolerance(5e-6, 5e-6, "WGSL: exp has 3 + 2 |x| ulp, |x| < 8 here; means of values below 2 by such weights")
SUMMED = Tolerance(5e-6, 2e-5, "sums of at most 70 weights below 1 times numbers below 10")
TOLERANCES = {
    "attention": WEIGHTED,
    **dict.fromkeys(("attention_grad_q", "attention_grad_k", "attention_grad_v"), SUMMED),
}


class Row(NamedTuple):
    """Sizes, the views of queries, keys, values and cotangent, and the mask."""

    batch: int
    heads: tuple[int, int]  # of queries, of keys
    lengths: tuple[int, int]
    features: tuple[int, int]  # of queries and keys, of values
    views: tuple[str, str, str, str] = ("plain", "plain", "plain", "plain")
    causal: bool = False
    mask: Arg | None = None


def _seen(*shape: int) -> Arg:
    """A Bool mask under which every row may attend to its first key, so that no log of an empty sum spoils a slope."""

    def draw(rng: np.random.Generator) -> np.ndarray:
        found = rng.random(shape) < 0.6
        found[..., 0] = True
        return found

    return Arg(shape, Bool, given=draw)


ROWS = (
    Row(1, (2, 1), (3, 5), (4, 4)),
    Row(2, (4, 2), (5, 4), (3, 5), mask=_seen(2, 1, 5, 4)),
    Row(1, (2, 2), (4, 6), (4, 4), ("transposed", "strided", "flipped", "repeated"), True),
    Row(2, (3, 1), (2, 7), (4, 4), ("expanded", "offset", "plain", "transposed"), mask=Arg((3, 1, 7), view="flipped")),
    Row(1, (2, 1), (66, 70), (4, 4), causal=True),
    Row(1, (1, 1), (65, 67), (4, 4), mask=_seen(65, 67)),
    Row(1, (1, 1), (130, 131), (4, 4), ("offset", "plain", "plain", "plain"), True),
    Row(0, (2, 1), (3, 5), (4, 4)),
    Row(1, (2, 2), (0, 5), (4, 4)),
)
# Without keys every log of a sum is -inf, which has no slope.
EMPTY = Row(1, (4, 2), (3, 0), (4, 4))


def _shape(row: Row, of: str) -> Shape:
    heads, length = (row.heads[0], row.lengths[0]) if of in "qg" else (row.heads[1], row.lengths[1])
    return (row.batch, heads, length, row.features[0 if of in "qk" else 1])


def _cases(row: Row, grad: bool = True) -> list[Case]:
    q, k, v, g = (Arg(_shape(row, of), Float, -1, 1, view) for of, view in zip("qkvg", row.views))
    lse, delta = Arg(q.shape[:3], Float, 1.5, 3), Arg(q.shape[:3], Float, -1, 1, "flipped")
    mask = (row.mask,) if row.mask else ()
    attrs: dict[str, Any] = {"scale": 0.3, "causal": row.causal}
    return [
        Case("attention", (q, k, v, *mask), attrs, grad),
        Case("attention_grad_q", (g, q, k, v, lse, delta, *mask), attrs),
        Case("attention_grad_k", (g, q, k, v, lse, delta, *mask), attrs),
        Case("attention_grad_v", (g, q, k, lse, *mask), attrs),
    ]


def attentions() -> list[Case]:
    return [*(case for row in ROWS for case in _cases(row)), *_cases(EMPTY, grad=False)]
