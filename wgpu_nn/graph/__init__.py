"""Capture without a tensor in sight: tracing into a program, simplifying and fusing it, planning, and replay."""

from wgpu_nn.graph.emit import plan_fused
from wgpu_nn.graph.passes import PASSES, simplify
from wgpu_nn.graph.plan import Plan, Slot, plan_plainly
from wgpu_nn.graph.program import Input, Instr, Program, Ref
from wgpu_nn.graph.step import Step
from wgpu_nn.graph.trace import Trace, Value

__all__ = [
    "PASSES",
    "Plan",
    "Slot",
    "Step",
    "plan_fused",
    "plan_plainly",
    "Input",
    "Instr",
    "Program",
    "Ref",
    "Trace",
    "Value",
    "simplify",
]
