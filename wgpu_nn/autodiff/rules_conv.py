"""The gradient rules of convolutions: each of the three ops has the other two in its rules, in any number of axes."""

# A lambda's parameters cannot be annotated, and these are all Terms.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from wgpu_nn.shape import Shape

if TYPE_CHECKING:
    from wgpu_nn.autodiff.backend import Term


def convolution_rules(op: str, axes: int) -> dict[str, Sequence[Callable[..., Term]]]:
    """Return the rules of the convolution ``op`` over ``axes`` axes and of its two gradients."""
    summed = (0, *range(2, axes + 2))

    def forward(x: Term, w: Term, counts: Shape, **window: Any) -> Term:
        """Windows that begin behind the last one of the op's own gradient take no part in it."""
        out = x.run(op, x, w, **window)
        return out.slice([(0, 1, n) for n in counts])

    def input_grad(g: Term, w: Term, shape: Shape, **window: Any) -> Term:
        return g.run(f"{op}_input_grad", g, w, shape=shape, **window)

    def weight_grad(x: Term, g: Term, shape: Shape, **window: Any) -> Term:
        return g.run(f"{op}_weight_grad", x, g, shape=shape, **window)

    return {
        op: (
            lambda g, out, x, w, *b, **win: input_grad(g, w, x.shape, **win),
            lambda g, out, x, w, *b, **win: weight_grad(x, g, w.shape, **win),
            lambda g, out, x, w, b, **win: g.sum(summed),
        ),
        f"{op}_input_grad": (
            lambda d, out, g, w, shape, **win: forward(d, w, g.shape, **win),
            lambda d, out, g, w, shape, **win: weight_grad(d, g, w.shape, **win),
        ),
        f"{op}_weight_grad": (
            lambda d, out, x, g, shape, **win: input_grad(g, d, x.shape, **win),
            lambda d, out, x, g, shape, **win: forward(x, d, g.shape, **win),
        ),
    }
