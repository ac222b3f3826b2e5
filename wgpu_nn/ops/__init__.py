"""The closed vocabulary of primitive ops: names, arities, categories, and the rules of their shapes and kinds."""

from wgpu_nn.ops import table as table
from wgpu_nn.ops.algebra import Algebra
from wgpu_nn.ops.spec import DEFAULT_DTYPES, OPS, Attrs, Category, Operand, OpSpec, Spec, infer, register

__all__ = ["DEFAULT_DTYPES", "OPS", "Algebra", "Attrs", "Category", "OpSpec", "Operand", "Spec", "infer", "register"]
