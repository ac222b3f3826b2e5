"""The gradients of moments, log-sum-exp and normalised rows; the table in rules.py takes them in."""

# A lambda's parameters cannot be annotated, and these are all Terms.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from wgpu_nn.shape import Shape, reduced, size

if TYPE_CHECKING:
    from wgpu_nn.autodiff.backend import Term

Rule = Callable[..., "Term"]


def half(t: Term, k: int, shape: Shape) -> Term:
    """Return the means (0) or the variances (1) of moments, under the shape that broadcasts against ``x``."""
    return t.narrow(0, k, 1).reshape(shape)


def moments(g: Term, out: Term, x: Term, axes: tuple[int, ...], keepdim: bool, correction: int) -> Term:
    kept, n = reduced(x.shape, axes, keepdim=True), size(tuple(x.shape[a] for a in axes))
    scale = 2 / (n - correction) if n > correction else math.nan
    return half(g, 0, kept) / max(n, 1) + half(g, 1, kept) * (x - half(out, 0, kept)) * scale


def logsumexp(g: Term, out: Term, x: Term, axes: tuple[int, ...], keepdim: bool) -> Term:
    """The softmax; 0 where all elements are -inf."""
    kept = reduced(x.shape, axes, keepdim=True)
    top = out.reshape(kept)
    return g.reshape(kept) * (top == -math.inf).where(0.0, (x - top).exp())


def deviation(op: str, x: Term, epsilon: float) -> Term:
    """Return what the rows of ``x`` were multiplied by: one over the root of their variance, or of their mean square."""
    if op == "rms_norm":
        return ((x * x).mean(-1, keepdim=True) + epsilon).rsqrt()
    m = x.run("moments", x, axes=(x.rank - 1,), keepdim=True, correction=0)
    return (half(m, 1, m.shape[1:]) + epsilon).rsqrt()


def rows(op: str) -> tuple[Rule, ...]:
    """With z the normalised row, r as above, and P = 1 - zz'/n (and less 11'/n where means are taken off): J = r P."""
    grad = f"{op}_grad"
    found: list[Rule] = [
        lambda g, out, x, *w, epsilon: g.run(grad, g, x, *w[:1], epsilon=epsilon),
        lambda g, out, x, *w, epsilon: g * x.run(op, x, epsilon=epsilon),
        lambda g, out, x, *w, epsilon: g,
    ]
    return tuple(found[: 3 if op == "layer_norm" else 2])


def rows_again(op: str) -> tuple[Rule, ...]:
    """The gradients of J u, u = g w: J is symmetric, and dr/dx = -r^2 z/n."""

    def back(d: Term, x: Term, epsilon: float) -> Term:
        return d.run(f"{op}_grad", d, x, epsilon=epsilon)

    def of_g(d: Term, out: Term, g: Term, x: Term, *w: Term, epsilon: float) -> Term:
        return back(d, x, epsilon) * w[0] if w else back(d, x, epsilon)

    def of_x(d: Term, out: Term, g: Term, x: Term, *w: Term, epsilon: float) -> Term:
        z, u = x.run(op, x, epsilon=epsilon), g * w[0] if w else g
        mean: Callable[[Term], Term] = lambda t: t.mean(-1, keepdim=True)
        turned = z * mean(d * out) + back(d, x, epsilon) * mean(z * u) + out * mean(d * z)
        return -turned * deviation(op, x, epsilon)

    def of_w(d: Term, out: Term, g: Term, x: Term, w: Term, epsilon: float) -> Term:
        return g * back(d, x, epsilon)

    return (of_g, of_x, of_w)


NORM_RULES: dict[str, Sequence[Rule | None]] = {
    "moments": (moments,),
    "logsumexp": (logsumexp,),
    "layer_norm": rows("layer_norm"),
    "layer_norm_grad": rows_again("layer_norm"),
    "rms_norm": rows("rms_norm"),
    "rms_norm_grad": rows_again("rms_norm"),
}
