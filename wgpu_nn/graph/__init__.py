"""Capture without a tensor in sight: tracing into a program, simplifying and fusing it, planning, and replay.

What needs a GPU's kernels (plan, emit, step) is imported from its own module, so that this package stays light.
"""

from wgpu_nn.graph.passes import PASSES, simplify
from wgpu_nn.graph.program import Input, Instr, Program, Ref
from wgpu_nn.graph.trace import Trace, Value

__all__ = ["PASSES", "Input", "Instr", "Program", "Ref", "Trace", "Value", "simplify"]
