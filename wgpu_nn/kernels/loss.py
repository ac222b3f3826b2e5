"""Plans cross-entropy from logits and its gradient, one row an invocation."""

from __future__ import annotations

import functools
from typing import NamedTuple

from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.plan import Input, Site, View, Words, bits, check_turns, grid
from wgpu_nn.kernels.source import assemble, bindings, words

_WORDS = ("rows", "classes", "logits_start", "logits_row", "logits_class", "targets_start", "targets_row")


class LossKey(NamedTuple):
    """What distinguishes loss kernels; the cotangent of a gradient is a tensor or a number, and losses may come along."""

    grad: bool
    number: bool
    losses: bool
    workgroup: int


@functools.cache
def loss_kernel(key: LossKey, values: Words | None) -> Kernel:
    """Return the kernel of the loss, or of its gradient."""
    names = _WORDS
    cotangent = ""
    stored = [("logits", "r", "f32"), ("targets", "r", "i32")]
    if key.grad and key.number:
        names = (*_WORDS, "cotangent_number")
        cotangent = "fn cotangent(row: u32) -> f32 { return bitcast<f32>(cotangent_number()); }"
    elif key.grad:
        names = (*_WORDS, "cotangent_start", "cotangent_row")
        cotangent = "fn cotangent(row: u32) -> f32 { return g[cotangent_start() + row * cotangent_row()]; }"
        stored.append(("g", "r", "f32"))
    stored.append(("out", "w", "f32"))
    if key.losses:
        stored.append(("losses", "w", "f32"))
    header = "\n".join(
        [
            bindings(tuple(stored), values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            words(names, values),
            cotangent,
            f"fn store_loss(row: u32, loss: f32) {{ {'losses[row] = loss;' if key.losses else ''} }}",
        ]
    )
    body = "cross_entropy_grad" if key.grad else "cross_entropy"
    return assemble(body, body, header, "".join(a for _, a, _ in stored), values is None)


def run_loss(
    site: Site, logits: View, targets: View, out: View, g: Input | None = None, losses: View | None = None
) -> None:
    """Plan the loss of each row; with a cotangent ``g``, the gradient of the logits, and the ``losses`` beside it."""
    if out.size == 0:
        return
    rows, classes = logits.shape
    check_turns(site, "cross_entropy", 3 * classes)
    number = g is not None and not isinstance(g, View)
    key = LossKey(g is not None, number, losses is not None, min(64, site.target.workgroup))
    values = [rows, classes, logits.offset, *logits.strides, targets.offset, *targets.strides]
    views = [logits, targets]
    if isinstance(g, View):
        values += [g.offset, *g.strides]
        views.append(g)
    elif g is not None:
        values.append(bits(g, logits.dtype))
    views += [out] if losses is None else [out, losses]
    site.launch(loss_kernel, key, tuple(values), views, grid(-(-rows // key.workgroup)))
