"""Compares a fused program with the same ops run one by one, and finds the first that differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.dtype import Scalar
from wgpu_nn.errors import CaptureError
from wgpu_nn.gpu import Segment
from wgpu_nn.graph.emit import plan_fused
from wgpu_nn.graph.passes import dead_code
from wgpu_nn.graph.program import Instr, Program, Ref
from wgpu_nn.graph.step import Step
from wgpu_nn.kernels import View, copy
from wgpu_nn.kernels.plan import Slot

# Sums in another order, and products that are not rounded in between, differ by this much of a tensor's largest element.
TOLERANCE = 1e-4
TOLERANCE_F16 = 4e-3  # op by op, each result is rounded to 2^-11; fused, the last alone

Values = Mapping[Ref, View | Scalar]


def reference(root: Wgpu, program: Program, inputs: Values) -> dict[Ref, View | Scalar]:
    """Return every value of ``program``, each op launched by itself as eager mode does."""
    values = dict(inputs)
    for i in program.instrs:
        operands = [values[x] if isinstance(x, Ref) else x for x in i.operands]
        values[i.out] = root.run(i.op, *operands, **dict(i.attrs))
    return values


def differs(root: Wgpu, found: View, expected: View | Scalar) -> float:
    """Return by what share of its largest element a value differs from the one expected; 0 within TOLERANCE."""
    a = root.download(found).astype(np.float64)
    b = np.asarray(root.download(expected) if isinstance(expected, View) else expected, np.float64)
    with np.errstate(invalid="ignore"):
        off = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    worst = float(np.max(np.where(np.isnan(off), np.inf, off), initial=0.0))
    largest = float(np.max(np.where(np.isfinite(b), np.abs(b), 0.0), initial=0.0))
    share = worst / max(largest, 1e-6)
    return share if share > (TOLERANCE_F16 if found.dtype.nbytes == 2 else TOLERANCE) else 0.0


def first_difference(root: Wgpu, program: Program, inputs: Values, expected: Values) -> tuple[Instr, float] | None:
    """Return the first instruction whose value, fused with what it needs, differs from the one expected."""
    for i in program.instrs:
        part = dead_code(replace(program, outputs=(i.out,), updates={}))
        share = differs(root, run_once(root, part, inputs), expected[i.out])
        if share:
            return i, share
    return None


def run_once(root: Wgpu, program: Program, inputs: Values) -> View:
    """Return the one result of a program, fused, with its state left alone."""
    constants = {i.ref: v for i in program.inputs if i.role == "const" and isinstance(v := inputs[i.ref], View)}
    plan = plan_fused(program, constants, root.target, root.tuner)
    places: dict[Slot, Segment] = {}
    for ref, slot in plan.consts.items():
        buffer = constants[ref].buffer
        places[slot] = Segment(buffer, 0, buffer.block.size)
    for ref, slot in plan.states.items():
        view = inputs[ref]
        assert isinstance(view, View)
        buffer = copy(root, view).buffer
        places[slot] = Segment(buffer, 0, buffer.block.size)
    specs = program.specs()
    step = Step(root.gpu, plan, places, [specs[r] for r in plan.host_refs])
    args = [v for r in plan.args if isinstance(v := inputs[r], View)]
    numbers = [root.download(v) if isinstance(v := inputs[r], View) else v for r in plan.host_refs]
    return step.run(args, numbers)[0]


def verify(
    root: Wgpu, name: str, program: Program, inputs: Values, expected: Values, results: Sequence[tuple[Ref, View]]
) -> None:
    """Raise CaptureError, naming the first op that differs, if a result differs from the one expected."""
    wrong = [(ref, share) for ref, view in results if (share := differs(root, view, expected[ref]))]
    if not wrong:
        return
    ref, share = max(wrong, key=lambda w: w[1])
    found = first_difference(root, program, inputs, expected)
    where = f"{ref} is off by {share:.2g} of its largest element"
    if found is not None:
        i, by = found
        where = (
            f"the first op to differ is {i.op} {i.spec} (by {by:.2g} of its largest element), asked for at {i.where}"
        )
    raise CaptureError(
        f"capture {name}: fused and op by op differ: {where}; capture it with fuse=False, and report this"
    )
