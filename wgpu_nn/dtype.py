"""Kinds (Float, Int, Bool) and the element types that a device may choose for them; knows no tensors."""

from __future__ import annotations

import enum
import numbers
from dataclasses import dataclass

import numpy as np


class Kind(enum.Enum):
    """What a tensor's elements mean; the device decides how they are stored."""

    FLOAT = "Float"
    INT = "Int"
    BOOL = "Bool"

    def __repr__(self) -> str:
        return self.value

    __str__ = __repr__  # messages say Float, not Kind.FLOAT


Float, Int, Bool = Kind.FLOAT, Kind.INT, Kind.BOOL

Scalar = float | int | bool


@dataclass(frozen=True, slots=True)
class DType:
    """One element type: its name, its kind, its NumPy type, and its WGSL type ("" where WGSL has none)."""

    name: str
    kind: Kind
    numpy: np.dtype[np.generic]
    wgsl: str

    def __repr__(self) -> str:
        return self.name


F32 = DType("f32", Float, np.dtype(np.float32), "f32")
F64 = DType("f64", Float, np.dtype(np.float64), "")
I32 = DType("i32", Int, np.dtype(np.int32), "i32")
I64 = DType("i64", Int, np.dtype(np.int64), "")
# A Bool occupies one u32 on the GPU: WebGPU buffers hold no bool, and a word can be written without its neighbours.
BOOL = DType("bool", Bool, np.dtype(np.bool_), "u32")

DTYPES = {d.name: d for d in (F32, F64, I32, I64, BOOL)}


def kind_of_numpy(dtype: np.dtype[np.generic]) -> Kind | None:
    """Return the kind that holds NumPy's ``dtype``, or None if no kind does (complex, text, objects)."""
    return {"f": Float, "i": Int, "u": Int, "b": Bool}.get(dtype.kind)


def kind_of_scalar(value: Scalar) -> Kind:
    """Return the kind of a Python number."""
    if isinstance(value, bool):
        return Bool
    return Int if isinstance(value, int) else Float


def as_scalar(value: object) -> Scalar | None:
    """Return ``value`` as a Python number (NumPy's scalars included), or None if it is none."""
    if isinstance(value, bool | int | float):
        return value
    item = getattr(value, "item", None)
    if isinstance(value, numbers.Number) and item is not None:
        found = item()
        return found if isinstance(found, bool | int | float) else None
    return None
