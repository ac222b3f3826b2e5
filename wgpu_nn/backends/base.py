"""The Backend protocol: one op entry, and ways in and out for arrays; everything that executes ops implements it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from wgpu_nn.dtype import DType, Kind, Scalar
from wgpu_nn.ops import Spec

# What a backend stores for a tensor. Each backend knows its own and looks into no other's.
Handle = Any


HostCallback = Callable[[], Sequence[Any]]  # numbers, or arrays, which only a trace takes


class Traced:
    """The handle of a value that is recorded rather than computed; see graph/."""

    __slots__ = ("spec",)

    def __init__(self, spec: Spec) -> None:
        self.spec = spec


class Recorder(Protocol):
    """What stands in for a backend while a function is captured."""

    def run(self, op: str, *operands: Handle | Scalar, **attrs: Any) -> Traced:
        """Record one op."""
        ...

    def host(self, callback: HostCallback) -> tuple[Traced, ...]:
        """Return numbers that ``callback`` gives anew at every call."""
        ...


class Pending(Protocol):
    """An array on its way from a device to the host."""

    def ready(self) -> bool:
        """Say whether the array has come; waits for nothing."""
        ...

    def result(self) -> np.ndarray:
        """Return the array; waits until the device has come to it."""
        ...


class Present:
    """An array that has come as soon as it is asked for."""

    __slots__ = ("_array",)

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def ready(self) -> bool:
        return True

    def result(self) -> np.ndarray:
        return self._array


class Backend(Protocol):
    """An interpreter of the primitive ops."""

    @property
    def name(self) -> str:
        """A short name for messages, such as ``wgpu`` or ``autodiff(numpy)``."""
        ...

    @property
    def dtypes(self) -> Mapping[Kind, DType]:
        """The element type that this backend gives to each kind."""
        ...

    def run(self, op: str, *operands: Handle | Scalar, **attrs: Any) -> Handle:
        """Run one primitive; operands are handles, or Python numbers where the op allows them."""
        ...

    def spec(self, handle: Handle) -> Spec:
        """Return a handle's shape and element type."""
        ...

    def upload(self, array: np.ndarray, dtype: DType) -> Handle:
        """Return a handle to a copy of ``array`` as ``dtype``."""
        ...

    def download(self, handle: Handle) -> np.ndarray:
        """Return a handle's elements as a new array; waits for the device."""
        ...

    def download_later(self, handles: Sequence[Handle]) -> list[Pending]:
        """Begin to read the handles' elements as they are now, all together, without waiting for the device."""
        ...

    def host(self, callback: HostCallback) -> tuple[Handle | Scalar, ...]:
        """Return the numbers of ``callback``: themselves, or in a captured function what stands for those of each call."""
        ...

    @property
    def recorder(self) -> Recorder | None:
        """What records instead of this backend in this thread at present, if anything does."""
        ...

    def sync(self) -> None:
        """Wait until all work given so far is done."""
        ...


_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def caller() -> str:
    """Return file:line of the innermost caller outside of this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
