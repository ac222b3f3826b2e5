"""Kinds (Float, Int, Bool) and the element types that a device may choose for them; knows no tensors."""

from __future__ import annotations

import enum
import numbers
from dataclasses import dataclass

import numpy as np

from wgpu_nn.errors import KindError


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


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """One element type: its name, its kind, its NumPy type, the WGSL type that kernels compute it in ("" where WGSL has
    none), and the bytes that one element takes on a GPU.
    """

    name: str
    kind: Kind
    numpy: np.dtype[np.generic]
    wgsl: str
    nbytes: int = 4

    @property
    def wide(self) -> DType:
        """The element type of what is summed up on the way to results of this one: f32 for f16, else itself."""
        return F32 if self.nbytes == 2 else self

    # Names tell them apart; to compare or hash all fields takes a microsecond, and every op does it.
    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, DType) and self.name == other.name)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return self.name


# Half precision is a way to store: kernels read it as f32, compute, and round what they store.
F16 = DType("f16", Float, np.dtype(np.float16), "f32", 2)
F32 = DType("f32", Float, np.dtype(np.float32), "f32")
F64 = DType("f64", Float, np.dtype(np.float64), "", 8)
I32 = DType("i32", Int, np.dtype(np.int32), "i32")
I64 = DType("i64", Int, np.dtype(np.int64), "", 8)
# A Bool occupies one u32 on the GPU: WebGPU buffers hold no bool, and a word can be written without its neighbours.
BOOL = DType("bool", Bool, np.dtype(np.bool_), "u32")

float16, float32 = F16, F32  # as NumPy and others name them

DTYPES = {d.name: d for d in (F32, F64, I32, I64, BOOL, F16)}


def promoted(x: DType, y: DType) -> DType:
    """Return the Float type that holds the elements of both: the wider one."""
    return x if x.numpy.itemsize >= y.numpy.itemsize else y


def kind_of_numpy(dtype: np.dtype[np.generic]) -> Kind | None:
    """Return the kind that holds NumPy's ``dtype``, or None if no kind does (complex, text, objects)."""
    return {"f": Float, "i": Int, "u": Int, "b": Bool}.get(dtype.kind)


def check_range(what: str, array: np.ndarray, dtype: DType) -> None:
    """Raise KindError for Ints beyond those that ``dtype`` holds."""
    if dtype.numpy.kind == "i" and array.size and array.dtype.kind in "iuf":
        info = np.iinfo(dtype.numpy.name)
        low, high = array.min(), array.max()
        if not (info.min <= low and high <= info.max):
            raise KindError(f"{what}: expected Ints that fit {dtype}, got {low} to {high}")


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
