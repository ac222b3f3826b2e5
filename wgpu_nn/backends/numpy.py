"""The reference backend: a table from op to NumPy; every other backend is tested against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wgpu_nn.backends.base import HostCallback, Pending, Present
from wgpu_nn.backends.numpy_norm import NORMS
from wgpu_nn.backends.numpy_order import ORDERS
from wgpu_nn.backends.numpy_routines import ROUTINES
from wgpu_nn.backends.threefry import normal, uniform
from wgpu_nn.dtype import BOOL, DTYPES, F16, F32, F64, I32, I64, Bool, DType, Float, Int, Kind, Scalar
from wgpu_nn.errors import KindError
from wgpu_nn.ops import OPS, Category, Spec, infer
from wgpu_nn.shape import size

Array = np.ndarray
_OF_NUMPY = {d.numpy: d for d in DTYPES.values()}


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _erf(x: Array) -> Array:
    # NumPy has no erf; math.erf is exact to double precision and this is the reference, not the fast path.
    import math

    return np.vectorize(math.erf, otypes=[np.float64])(x) if x.size else x


def _reduce(fn: Callable[..., Array]) -> Callable[..., Array]:
    return lambda x, axes, keepdim: fn(x, axis=axes, keepdims=keepdim)


def _keep_dtype(fn: Callable[..., Array]) -> Callable[..., Array]:
    # NumPy sums Ints in the platform's long; the result keeps the element type, wrapping like the GPU's.
    return lambda x, axes, keepdim: fn(x, axis=axes, keepdims=keepdim, dtype=x.dtype)


def _mean(x: Array, axes: tuple[int, ...], keepdim: bool) -> Array:
    # NumPy's own warns where there is nothing to take the mean of; NaN says it.
    total = x.sum(axis=axes, keepdims=keepdim)
    return total / size(tuple(x.shape[a] for a in axes))


def _arg(fn: Callable[..., Array]) -> Callable[..., Array]:
    return lambda x, axes, keepdim: fn(x, axis=axes[0], keepdims=keepdim)


def _cast(x: Array, dtype: DType) -> Array:
    if dtype.kind is Int and x.dtype.kind == "f":
        # Saturate and send NaN to 0, as WGSL and IEEE conversions do; C's (and NumPy's) is undefined there.
        info = np.iinfo(dtype.numpy.name)
        return np.clip(np.nan_to_num(np.trunc(x.astype(np.float64)), nan=0.0), info.min, info.max).astype(dtype.numpy)
    return x.astype(dtype.numpy)


def _slice(x: Array, ranges: tuple[tuple[int, int, int], ...]) -> Array:
    return x[slices(ranges)]


def slices(ranges: tuple[tuple[int, int, int], ...]) -> tuple[slice, ...]:
    """Return (start, step, count) triples as Python slices."""
    out: list[slice] = []
    for start, step, count in ranges:
        stop = start + step * count
        out.append(slice(start, stop if stop >= 0 else None, step) if count else slice(0, 0))
    return tuple(out)


def _slice_assign(x: Array, value: Array, ranges: tuple[tuple[int, int, int], ...]) -> Array:
    out = x.copy()
    out[slices(ranges)] = value
    return out


def _sign(x: Array) -> Array:
    return np.sign(x)


TABLE: dict[str, Callable[..., Any]] = {
    "full": lambda value, shape, dtype: np.full(shape, value, dtype.numpy),
    "arange": lambda start, step, shape: start + step * np.arange(shape[0], dtype=np.int64),
    "uniform": uniform,
    "normal": normal,
    "neg": np.negative,
    "abs": np.abs,
    "sign": _sign,
    "relu": lambda x: np.maximum(x, 0),
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "recip": lambda x: 1 / x,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "sigmoid": _sigmoid,
    "erf": _erf,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "is_nan": np.isnan,
    "is_inf": np.isinf,
    "logical_not": np.logical_not,
    "cast": _cast,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "atan2": np.arctan2,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "remainder": np.remainder,
    "floor_div": np.floor_divide,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
    "where": np.where,
    "sum": _keep_dtype(np.sum),
    "prod": _keep_dtype(np.prod),
    "mean": _mean,
    "max": _reduce(np.max),
    "min": _reduce(np.min),
    "any": _reduce(np.any),
    "all": _reduce(np.all),
    "argmax": _arg(np.argmax),
    "argmin": _arg(np.argmin),
    "reshape": lambda x, shape: x.reshape(shape),
    "permute": lambda x, axes: np.transpose(x, axes),
    "expand": lambda x, shape: np.broadcast_to(x, shape),
    "slice": _slice,
    "slice_assign": _slice_assign,
    "cat": lambda *xs, axis: np.concatenate(xs, axis=axis),
    **ROUTINES,
    **ORDERS,
    **NORMS,
}


def _wide(x: Array | Scalar) -> Array | Scalar:
    return x.astype(np.float32) if isinstance(x, np.ndarray) and x.dtype == F16.numpy else x


class Numpy:
    """Runs ops with NumPy; its Float is f32 by default, or f64 (its Int then being i64) as an oracle."""

    def __init__(self, float_type: DType = F32) -> None:
        if float_type not in (F32, F64):
            raise KindError(f"Numpy: expected the element type f32 or f64, got {float_type}")
        self._dtypes: Mapping[Kind, DType] = {Float: float_type, Int: I32 if float_type == F32 else I64, Bool: BOOL}

    @property
    def name(self) -> str:
        return "numpy"

    @property
    def dtypes(self) -> Mapping[Kind, DType]:
        return self._dtypes

    def spec(self, handle: Array) -> Spec:
        return Spec(handle.shape, _OF_NUMPY[handle.dtype])

    def run(self, op: str, *operands: Array | Scalar, **attrs: Any) -> Array:
        given = [Spec(x.shape, _OF_NUMPY[x.dtype]) if isinstance(x, np.ndarray) else x for x in operands]
        out = infer(op, given, attrs, self._dtypes)
        # NaN and infinities are ordinary values here, as on a GPU; who cares asks is_nan.
        with np.errstate(all="ignore"):
            if OPS[op].category is not Category.VIEW:  # as on a GPU, f16 is computed in f32, and rounded once
                operands = tuple(_wide(x) for x in operands)
            found = TABLE[op](*operands, **attrs)
            return np.asarray(found, dtype=out.dtype.numpy).reshape(out.shape)

    def upload(self, array: Array, dtype: DType) -> Array:
        return np.array(array, dtype=dtype.numpy, order="C")

    def download(self, handle: Array) -> Array:
        return np.array(handle, order="C")

    def download_later(self, handles: Sequence[Array]) -> list[Pending]:
        return [Present(self.download(handle)) for handle in handles]

    def host(self, callback: HostCallback) -> tuple[Scalar, ...]:
        return tuple(callback())

    @property
    def recorder(self) -> None:
        return None

    def sync(self) -> None:
        """NumPy has nothing to wait for."""
