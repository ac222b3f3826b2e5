"""What an op is: a name, an arity, a category and one rule for shapes and kinds; knows no backend."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wgpu_nn.dtype import BOOL, F32, I32, DType, Float, Int, Kind, Scalar
from wgpu_nn.dtype import Bool as BoolKind
from wgpu_nn.errors import KindError, ShapeError, WgpuNNError
from wgpu_nn.shape import MAX_RANK, Shape, size

Attrs = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Spec:
    """The shape and element type of one operand or result."""

    shape: Shape
    dtype: DType

    @property
    def nbytes(self) -> int:
        """The bytes that the elements take on a GPU."""
        return self.dtype.nbytes * size(self.shape)

    def __repr__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


Operand = Spec | Scalar
Rule = Callable[[str, Sequence[Operand], Attrs, Mapping[Kind, DType]], Spec]


class Category(enum.Enum):
    """How an op is executed, and so how it may be fused."""

    SOURCE = "source"  # makes elements from nothing but their index
    MAP = "map"  # one output element from one element of each operand
    REDUCE = "reduce"  # folds axes
    VIEW = "view"  # the same elements under another shape; may cost nothing
    ROUTINE = "routine"  # has a kernel of its own


@dataclass(frozen=True, slots=True)
class OpSpec:
    """One row of the vocabulary.

    ``memory_bound`` says that recomputing the op costs little against keeping its result.
    """

    name: str
    category: Category
    arity: tuple[int, int]  # fewest and most operands
    rule: Rule
    memory_bound: bool


OPS: dict[str, OpSpec] = {}
DEFAULT_DTYPES: Mapping[Kind, DType] = {Float: F32, Int: I32, BoolKind: BOOL}


def register(name: str, category: Category, arity: int | tuple[int, int], rule: Rule) -> None:
    """Add one op to the vocabulary; custom ops of users come in here as well."""
    if name in OPS:
        raise WgpuNNError(f"register: an op named {name!r} exists already; choose another name")
    bounds = (arity, arity) if isinstance(arity, int) else arity
    cheap = category is not Category.ROUTINE
    OPS[name] = OpSpec(name, category, bounds, rule, memory_bound=cheap)


def infer(op: str, operands: Sequence[Operand], attrs: Attrs, dtypes: Mapping[Kind, DType]) -> Spec:
    """Return the shape and element type of ``op``'s result, or raise the error that its operands deserve."""
    spec = OPS.get(op)
    if spec is None:
        raise WgpuNNError(f"{op}: no such op; ops are registered in wgpu_nn.ops")
    low, high = spec.arity
    if not low <= len(operands) <= high:
        raise WgpuNNError(f"{op}: expected {low if low == high else f'{low} to {high}'} operands, got {len(operands)}")
    out = spec.rule(op, operands, attrs, dtypes)
    if len(out.shape) > MAX_RANK:
        raise ShapeError(f"{op}: expected a result of rank {MAX_RANK} at most, got {list(out.shape)}")
    return out


def tensor(op: str, operand: Operand, *kinds: Kind) -> Spec:
    """Return ``operand`` if it is a tensor of one of ``kinds`` (any kind if none is given)."""
    if not isinstance(operand, Spec):
        raise KindError(f"{op}: expected a tensor, got the number {operand!r}; make it a tensor first")
    if kinds and operand.dtype.kind not in kinds:
        raise KindError(f"{op}: expected {one_of(kinds)}, got {operand}; {way_out(operand.dtype.kind, kinds)}")
    return operand


def one_of(kinds: Sequence[Kind]) -> str:
    """Return kinds as prose: ``a Float or Int tensor``."""
    article = "an" if kinds[0] is Int else "a"
    return f"{article} {' or '.join(k.value for k in kinds)} tensor"


def way_out(got: Kind, wanted: Sequence[Kind]) -> str:
    """Return the conversion to suggest for a tensor of kind ``got``."""
    if Float in wanted:
        return "convert it with .float()"
    if Int in wanted:
        return "convert it with .int()"
    return "compare it with something, or convert it with .bool()" if got is not BoolKind else "convert it"
