"""One row of the case table: an op, its operands and the views that they are seen through, and its tolerance."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wgpu_nn.backends.base import Backend, Handle
from wgpu_nn.dtype import Float, Int, Kind

Shape = tuple[int, ...]


def f32(values: Any) -> np.ndarray:
    return np.array(values, np.float32)


def i32(values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def _reversed(shape: Shape) -> tuple[Shape, list[tuple[str, dict[str, Any]]]]:
    return shape[::-1], [("permute", {"axes": tuple(reversed(range(len(shape))))})]


def _sliced(start: int, step: int, more: Callable[[int], int]) -> Callable[[Shape], Any]:
    def view(shape: Shape) -> tuple[Shape, list[tuple[str, dict[str, Any]]]]:
        ranges = tuple((start if step > 0 else max(n - 1, 0), step, n) for n in shape)
        return tuple(more(n) for n in shape), [("slice", {"ranges": ranges})]

    return view


# A view's name -> the shape that is uploaded for a wanted one, and the view ops that lead from it to that.
VIEWS: dict[str, Callable[[Shape], tuple[Shape, list[tuple[str, dict[str, Any]]]]]] = {
    "plain": lambda shape: (shape, []),
    "transposed": _reversed,
    "flipped": _sliced(0, -1, lambda n: n),
    "strided": _sliced(1, 2, lambda n: 2 * n + 1),
    "offset": lambda shape: (
        (shape[0] + 1, *shape[1:]),
        [("slice", {"ranges": ((1, 1, shape[0]), *((0, 1, n) for n in shape[1:]))})],
    ),
    "expanded": lambda shape: ((1, *shape[1:]), [("expand", {"shape": shape})]),
    "repeated": lambda shape: ((*shape[:-1], 1), [("expand", {"shape": shape})]),
}


@dataclass(frozen=True, slots=True)
class Arg:
    """A tensor operand: its shape, kind and view, and the range that its elements are drawn from."""

    shape: Shape
    kind: Kind = Float
    low: float = -2.0
    high: float = 2.0
    view: str = "plain"
    given: Callable[[np.random.Generator], np.ndarray] | None = None  # draws it, where a range does not do

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Return what is uploaded; Floats are exact in f32, so that all backends start from the same numbers."""
        if self.given is not None:
            return self.given(rng)
        shape = VIEWS[self.view](self.shape)[0]
        if self.kind is Float:
            return rng.uniform(self.low, self.high, shape).astype(np.float32)
        if self.kind is Int:
            return rng.integers(int(self.low), int(self.high), shape, endpoint=True)
        return rng.random(shape) < 0.5

    def place(self, backend: Backend, array: np.ndarray) -> Handle:
        """Return the operand on a backend: the upload, seen through the view."""
        handle = backend.upload(array, backend.dtypes[self.kind])
        for op, attrs in VIEWS[self.view](self.shape)[1]:
            handle = backend.run(op, handle, **attrs)
        return handle


@dataclass(frozen=True, slots=True)
class Tolerance:
    """|got - exact| <= absolute + relative |exact|; ``same`` says that f32 backends agree to the last bit."""

    relative: float
    absolute: float
    why: str
    same: bool = False


WHOLE = Tolerance(0, 0, "integers, or the nearest representable number of a table", same=True)


@dataclass(frozen=True, slots=True)
class Case:
    """One op on given operands. Attributes that are Kinds stand for the backend's element type of that kind."""

    op: str
    args: tuple[Arg | float | int | bool, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    grad: bool = True  # where the op has a gradient: whether it is smooth at these points
    tolerance: Tolerance = WHOLE
    name: str = ""

    def draw(self) -> list[Any]:
        """Return the operands' arrays, the same each time."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        return [a.draw(rng) if isinstance(a, Arg) else a for a in self.args]

    def attributes(self, backend: Backend) -> dict[str, Any]:
        return {k: backend.dtypes[v] if isinstance(v, Kind) else v for k, v in self.attrs.items()}

    def run(self, backend: Backend) -> np.ndarray:
        """Return the result on a backend."""
        operands = [a.place(backend, x) if isinstance(a, Arg) else x for a, x in zip(self.args, self.draw())]
        return backend.download(backend.run(self.op, *operands, **self.attributes(backend)))
