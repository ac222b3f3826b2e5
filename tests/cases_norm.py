"""Rows of the case table for moments, log-sum-exp and normalised rows."""

from __future__ import annotations

from tests.case import Arg, Case, Tolerance

SQUARED = Tolerance(3e-6, 3e-6, "means of fewer than 3000 squares below 4, in trees")
EXPONENTIALS = Tolerance(3e-6, 1e-6, "the log of a sum of exponentials, each of 3 + 2 |x| ulp")
NORMALISED = Tolerance(1e-5, 1e-5, "a variance's root, 2 ulp, and the mean's rounding over a deviation above 0.3")


def norm_cases() -> list[Case]:
    out: list[Case] = []
    layouts = [
        (Arg((7,)), (0,)), (Arg((3, 5)), (1,)), (Arg((3, 5)), (0,)), (Arg((4, 8)), (0,)), (Arg((3, 5)), (0, 1)),
        (Arg((2, 3, 4), view="transposed"), (0, 2)), (Arg((2, 3, 4), view="flipped"), (1,)), (Arg((3, 4, 5, 4)), (0, 2, 3)),
        (Arg((4, 3), view="expanded"), (1,)), (Arg((5, 130)), (1,)), (Arg((130, 5)), (0,)), (Arg((0, 2)), (1,)),
        (Arg((2, 1)), (1,)), (Arg((2500,)), (0,)),
    ]  # fmt: skip
    for k, (x, axes) in enumerate(layouts):
        out.append(Case("logsumexp", (x,), {"axes": axes, "keepdim": k % 2 == 0}, tolerance=EXPONENTIALS))
        attrs = {"axes": axes, "keepdim": k % 2 == 1, "correction": k % 2 if x.shape != (2, 1) else 0}
        out.append(Case("moments", (x,), attrs, tolerance=SQUARED))
    out.append(Case("logsumexp", (Arg((3, 0)),), {"axes": (1,), "keepdim": False}, grad=False))
    shapes = [((1,), "plain"), ((3, 5), "plain"), ((5, 8), "offset"), ((2, 3, 7), "transposed"), ((4, 12), "strided"),
        ((2, 70), "plain"), ((3, 256), "plain"), ((2, 1030), "flipped"), ((0, 4), "plain"), ((2, 0), "plain")]  # fmt: skip
    for shape, view in shapes:
        x, g, w, b = (Arg(shape, view=view), Arg(shape), Arg(shape[-1:], low=0.5), Arg(shape[-1:], view="flipped"))
        # A row of one element has no deviation: without a large epsilon its gradient is a difference of infinities.
        attrs = {"epsilon": 0.1 if shape[-1] == 1 else 1e-5}
        for op, given in (("layer_norm", (x, w, b)), ("layer_norm", (x, w)), ("rms_norm", (x, w))):
            out += [Case(op, given, attrs, tolerance=NORMALISED), Case(op, given[:1], attrs, tolerance=NORMALISED)]
        for op in ("layer_norm_grad", "rms_norm_grad"):
            out += [Case(op, given, attrs, tolerance=NORMALISED) for given in ((g, x), (g, x, w))]
    return out
