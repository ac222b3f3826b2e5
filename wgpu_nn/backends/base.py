"""The Backend protocol: one op entry, and ways in and out for arrays; everything that executes ops implements it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from wgpu_nn.dtype import DType, Kind, Scalar
from wgpu_nn.ops import Spec

# What a backend stores for a tensor. Each backend knows its own and looks into no other's.
Handle = Any


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

    def sync(self) -> None:
        """Wait until all work given so far is done."""
        ...
