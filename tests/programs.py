"""Random programs over the whole op table: drawn by hypothesis, checked by the ops' own rules, played on any device.

Each op is run in double precision as it is drawn, twice: as it is, and with every rounding made visible. What is not
finite, large, or changes when roundings do (a comparison of equals, the order of near ties) is not taken: what is left
must agree everywhere. How the arguments of each op are drawn stands in program_args.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.case import VIEWS, Shape
from wgpu_nn import Device, Tensor, tensor
from wgpu_nn.backends.numpy import Numpy
from wgpu_nn.dtype import F64, Bool, Float, Int, Kind, Scalar
from wgpu_nn.errors import WgpuNNError
from wgpu_nn.ops import DEFAULT_DTYPES, OPS, Category, Spec, infer
from wgpu_nn.shape import size

KINDS = (Float, Int, Bool)
SIZES = (0, 1, 1, 2, 2, 3, 4, 5, 7, 8)
LONG = (33, 70, 130, 300)  # beyond what one invocation, or one workgroup, takes at once
MOST = 4096  # elements of a value
LARGEST = 1e3  # of Floats; Ints stay exact in f32
ROUNDING = 2e-6  # some 30 of f32's own: an op's error in its worst case, or nearly
NUMBERS: dict[Kind, tuple[Scalar, ...]] = {
    Float: (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -0.375, 3.0, 2, -1),
    Int: (0, 1, -1, 2, 3, -7),
    Bool: (True, False),
}
# Floats that come out of these are Floats that went in.
MOVES = frozenset(
    ("neg", "abs", "relu", "sign", "floor", "ceil", "round", "maximum", "minimum", "where", "max", "min", "cat", "gather",
     "slice_assign", "cummax", "cummin", "full", "uniform", "max_pool2d", "cast")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ref:
    """A value of a program, by its number."""

    n: int


@dataclass(frozen=True, slots=True)
class Call:
    """One op on values and numbers. An attribute that is a Kind stands for the device's element type of it."""

    op: str
    operands: tuple[Ref | Scalar, ...]
    attrs: dict[str, Any]


@dataclass(slots=True)
class Program:
    """Inputs, and calls that each add a value; inputs come first in the numbering only as they are drawn."""

    inputs: list[tuple[np.ndarray, Kind]] = field(default_factory=list[tuple[np.ndarray, Kind]])
    order: list[int | Call] = field(default_factory=list[int | Call])  # an input by its number, or a call

    def play(self, device: Device, given: Sequence[Tensor]) -> list[Tensor]:
        """Return every value, computed on ``device`` from the inputs that are ``given`` there."""
        values: list[Tensor] = []
        for step in self.order:
            if isinstance(step, int):
                values.append(given[step])
                continue
            attrs = {k: device.dtype(v) if isinstance(v, Kind) else v for k, v in step.attrs.items()}
            handles = [values[x.n].handle if isinstance(x, Ref) else x for x in step.operands]
            values.append(Tensor(device, device.backend.run(step.op, *handles, **attrs)))
        return values

    def place(self, device: Device) -> list[Tensor]:
        """Return the inputs on ``device``."""
        return [tensor(array, device) for array, _ in self.inputs]

    def __repr__(self) -> str:
        lines: list[str] = []
        for n, step in enumerate(self.order):
            if isinstance(step, int):
                array, kind = self.inputs[step]
                lines.append(f"v{n} = {kind} {list(array.shape)}")
            else:
                given = [f"v{x.n}" if isinstance(x, Ref) else repr(x) for x in step.operands]
                given += [f"{k}={v!r}" for k, v in step.attrs.items()]
                lines.append(f"v{n} = {step.op}({', '.join(given)})")
        return "\n".join(lines)


# What adds up products of its operands: near a sum that cancels stands a rounding of its terms.
SUMS = frozenset(
    ("sum", "mean", "cumsum", "matmul", "add", "sub", "scatter_add", "avg_pool2d", "avg_pool2d_grad", "adaptive_avg_pool2d",
     "adaptive_avg_pool2d_grad", *(op for op in OPS if op.startswith("conv")))
)  # fmt: skip
WHOLE = 64  # sums of multiples of 1 / WHOLE are exact


class Shaken(Numpy):
    """NumPy in double precision with roundings that can be seen: equal numbers are rounded equally.

    Not so the two results of moments: a mean that equals a variance does so on no other device. A sum that cancels is as
    wrong as its terms are large, and of the other sign, unless it is of whole numbers. The gradients of norms take from
    their first operand what lies along the row, which may be nearly all: its own rounding is what is left.
    """

    def run(self, op: str, *operands: Any, **attrs: Any) -> np.ndarray:
        if op in ("layer_norm_grad", "rms_norm_grad"):
            operands = (operands[0] * (1 + ROUNDING * np.sin(1e4 * operands[0])), *operands[1:])
        out = super().run(op, *operands, **attrs)
        if out.dtype.kind != "f" or op in MOVES or OPS[op].category is Category.VIEW:
            return out
        if op == "moments":
            return np.asarray(out * (1 + ROUNDING * np.stack([np.sin(1e4 * out[0]), np.cos(1e4 * out[1])])))
        error = out * np.sin(1e4 * out)
        if op in SUMS and not all(_whole(x) for x in (*operands, out)):
            terms = super().run("add" if op == "sub" else op, *(_size(x) for x in operands), **attrs)
            error = np.where(np.abs(out) < ROUNDING * terms, np.where(out < 0, 2, -2) * terms, error)
        return np.asarray(out + ROUNDING * error)


def _is_float(x: Any) -> bool:
    return isinstance(x, float) or (isinstance(x, np.ndarray) and x.dtype.kind == "f")


def _size(x: Any) -> Any:
    """Return the absolute values of Floats; an array stays one without axes too."""
    return np.asarray(np.abs(x)) if isinstance(x, np.ndarray) and _is_float(x) else abs(x) if _is_float(x) else x


def _whole(x: Any) -> bool:
    return not _is_float(x) or bool(np.all(np.rint(np.multiply(x, WHOLE)) == np.multiply(x, WHOLE)))


EXACT, SHAKEN = Numpy(F64), Shaken(F64)


@functools.cache
def kinds_of(op: str) -> tuple[Kind, ...]:
    """Return the kinds that an op's rule takes as its first operand, where all are alike."""
    found: list[Kind] = []
    for kind in KINDS:
        one = Spec((2,), DEFAULT_DTYPES[kind])
        attrs = {"axes": (0,), "keepdim": False, "axis": 0, "dtype": one.dtype, "correction": 0, "descending": False}
        try:
            infer(op, [one] * OPS[op].arity[0], {**attrs, "k": 1, "largest": True}, DEFAULT_DTYPES)
        except WgpuNNError:
            continue
        found.append(kind)
    return tuple(found) or KINDS


class Drawer:
    """Writes down a program, and knows every value of it; ``integer`` decides, by a number from low to high."""

    def __init__(self, integer: Callable[[int, int], int]) -> None:
        self.between = integer
        self.program = Program()
        self.specs: list[Spec] = []
        self.exact: list[np.ndarray] = []
        self.shaken: list[np.ndarray] = []

    # --- decisions -------------------------------------------------------------------------------------------------
    def one(self, choices: Sequence[Any]) -> Any:
        return choices[self.below(len(choices))]

    def below(self, count: int) -> int:
        return self.between(0, count - 1)

    def chance(self, one_in: int) -> bool:
        return self.below(one_in) == one_in - 1

    def shape(self, least: int = 0, most: int = 4) -> Shape:
        rank = self.between(least, most)
        found = [self.one(SIZES) for _ in range(rank)]
        if rank and self.chance(8):
            found[self.below(rank)] = self.one(LONG)
        return tuple(found) if size(tuple(found)) <= MOST else tuple(min(n, 5) for n in found)

    # --- values ----------------------------------------------------------------------------------------------------
    def add(self, op: str, operands: Sequence[Ref | Scalar], attrs: dict[str, Any]) -> Ref | None:
        """Append a call, unless the op's rule refuses it or its result is no ground to build on."""
        given = [self.specs[x.n] if isinstance(x, Ref) else x for x in operands]
        plain = {k: DEFAULT_DTYPES[v] if isinstance(v, Kind) else v for k, v in attrs.items()}
        try:
            spec = infer(op, given, plain, DEFAULT_DTYPES)
        except WgpuNNError:
            return None
        if size(spec.shape) > MOST:
            return None
        wide = {k: EXACT.dtypes[v] if isinstance(v, Kind) else v for k, v in attrs.items()}
        found: list[np.ndarray] = []
        with np.errstate(all="ignore"):
            for backend, values in ((EXACT, self.exact), (SHAKEN, self.shaken)):
                found.append(backend.run(op, *(values[x.n] if isinstance(x, Ref) else x for x in operands), **wide))
        if not _steady(*found):
            return None
        self.program.order.append(Call(op, tuple(operands), attrs))
        return self._keep(spec, *found)

    def _keep(self, spec: Spec, exact: np.ndarray, shaken: np.ndarray) -> Ref:
        self.specs.append(spec)
        self.exact.append(exact)
        self.shaken.append(shaken)
        return Ref(len(self.specs) - 1)

    def input(self, array: np.ndarray, kind: Kind) -> Ref:
        """Append an input."""
        self.program.order.append(len(self.program.inputs))
        self.program.inputs.append((array, kind))
        wide = array.astype(EXACT.dtypes[kind].numpy)
        return self._keep(Spec(array.shape, DEFAULT_DTYPES[kind]), wide, wide)

    def fresh(self, shape: Shape, kind: Kind = Float, low: float = -2.0, high: float = 2.0) -> Ref:
        """Append an input of ``shape``, seen through some view."""
        view = self.one(tuple(VIEWS))
        if not shape or (view in ("expanded", "repeated") and 0 in shape) or size(shape) > MOST // 8:
            view = "plain"
        stored, calls = VIEWS[view](shape)
        rng = np.random.default_rng(self.between(0, 1 << 16))
        if kind is Bool:
            array = rng.random(stored) < 0.5
        elif kind is Int or self.chance(4):  # whole and half numbers: ties, zeros, exact sums
            step = 2 if kind is Float else 1
            array = rng.integers(int(low * step), int(high * step), stored, endpoint=True) / step
        else:
            array = rng.uniform(low, high, stored)
        at = self.input(np.asarray(array, DEFAULT_DTYPES[kind].numpy), kind)
        for op, attrs in calls:
            at = self.add(op, [at], attrs) or at
        return at

    def value(self, *kinds: Kind, least: int = 0, most: int = 8) -> Ref:
        """Return some value of these kinds and ranks, an old or a new one."""
        fits = [n for n, s in enumerate(self.specs) if s.dtype.kind in kinds and least <= len(s.shape) <= most]
        if not fits or self.chance(5):
            return self.fresh(self.shape(least, min(most, 4)), self.one(kinds))
        return Ref(fits[max(self.below(len(fits)), self.below(len(fits)))])  # late ones rather than early ones

    def shaped(self, shape: Shape, kind: Kind = Float, low: float = -2.0, high: float = 2.0) -> Ref:
        """Return some value of just this shape and kind."""
        fits = [n for n, s in enumerate(self.specs) if s.shape == shape and s.dtype.kind is kind]
        fits = [n for n in fits if not self.exact[n].size or low <= self.exact[n].min() <= self.exact[n].max() <= high]
        return Ref(self.one(fits)) if fits and not self.chance(3) else self.fresh(shape, kind, low, high)

    def partner(self, of: Ref, kind: Kind | None = None) -> Ref | Scalar:
        """Return something that broadcasts with a value: another, a new one, or a number."""
        spec = self.specs[of.n]
        kind = kind or spec.dtype.kind
        how = self.below(4)
        if how == 0:
            return self.one(NUMBERS[kind])
        fits = [n for n, s in enumerate(self.specs) if s.dtype.kind is kind and _broadcasts(s.shape, spec.shape)]
        if how == 1 or not fits:
            kept = spec.shape[self.between(0, len(spec.shape)) :]
            return self.fresh(tuple(1 if self.chance(3) else n for n in kept), kind)
        return Ref(self.one(fits))

    def spec(self, ref: Ref) -> Spec:
        return self.specs[ref.n]


def _steady(exact: np.ndarray, shaken: np.ndarray) -> bool:
    """Whether a result is finite, of moderate size, and does not hang on a rounding."""
    if exact.dtype.kind == "b":
        return bool(np.array_equal(exact, shaken))
    if exact.dtype.kind == "i":
        return bool(np.array_equal(exact, shaken) and np.all(np.abs(exact) < 1 << 20))
    if not (np.isfinite(exact).all() and np.isfinite(shaken).all()):
        return False
    most = np.max(np.abs(exact), initial=0)
    return bool(most <= LARGEST and np.max(np.abs(exact - shaken), initial=0) <= 1e-3 * (1 + most))


def _broadcasts(a: Shape, b: Shape) -> bool:
    pairs = list(zip(reversed(a), reversed(b), strict=False))
    return all(m == n or 1 in (m, n) for m, n in pairs) and size(tuple(max(p) for p in pairs)) <= MOST
