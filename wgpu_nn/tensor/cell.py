"""Cell: a place for a tensor that changes: a parameter, an optimizer's moment, a running count. What capture calls state."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

from wgpu_nn.backends.base import Traced
from wgpu_nn.dtype import Scalar
from wgpu_nn.errors import ShapeError
from wgpu_nn.graph import Trace
from wgpu_nn.tensor.device import Device
from wgpu_nn.tensor.tensor import Tensor

_touched = itertools.count(1)


class Cell:
    """A place whose tensor can be replaced by another one of the same shape and kind; its element type stays.

    Captured steps update cells in place. Tensors are immutable all the same: what was read from a cell keeps its
    elements, as a step that would overwrite them moves them first.
    """

    __slots__ = ("__weakref__", "_loans", "_value", "owned")

    touched: ClassVar[int] = 0  # grows whenever any cell gets another tensor or lends its memory

    def __init__(self, value: Tensor) -> None:
        self._value = self._prepared(value)
        self.owned = False  # whether a captured step writes to the tensor's memory
        self._loans: list[weakref.ref[Any]] = []  # leases on that memory that were given away

    def _prepared(self, value: Tensor) -> Tensor:
        """Return a tensor as this kind of cell keeps it."""
        return value

    @property
    def value(self) -> Tensor:
        """The tensor."""
        trace = cast("Trace | None", self._value.device.backend.recorder)
        if trace is not None and not isinstance(
            self._value.root, Traced
        ):  # which a cell made in the trace itself holds
            if self not in trace.cells:
                value = trace.input("state", self._value.device.backend.spec(self._value.handle))
                trace.states[value.ref] = self
                trace.cells[self] = self._prepared(Tensor.of_root(self._value.device, value))
            return trace.cells[self]
        if not self.owned:
            return self._value
        Cell.touched = next(_touched)
        lent = cast(Any, self._value.root).lent()
        if len(self._loans) >= 32:
            self._loans = [r for r in self._loans if r() is not None]
        self._loans.append(weakref.ref(lent.buffer))
        return self._value.with_root(lent)

    @value.setter
    def value(self, new: Tensor) -> None:
        old = self._value
        if new.shape != old.shape or new.kind is not old.kind:
            raise ShapeError(
                f"{type(self).__name__.lower()}: expected a {old.kind} tensor of shape {list(old.shape)}, "
                f"got {new.kind} {list(new.shape)}"
            )
        if new.device != old.device:  # which may have no halves
            new = (new if old.dtype.nbytes == 2 else new.cast(new.dtype.wide)).to(old.device)
        kept = self._prepared(new.cast(old.dtype))
        trace = cast("Trace | None", old.device.backend.recorder)
        if trace is not None:
            _ = self.value  # becomes an input of the trace even if it is only written
            trace.cells[self] = kept
            return
        self._value, self.owned = kept, False
        Cell.touched = next(_touched)

    @property
    def lent(self) -> bool:
        """Whether leases on the cell's memory were given away of late."""
        return bool(self._loans)

    def loans(self, block: object) -> list[Any]:
        """Return the leases on ``block`` that were given away and are still held outside, and forget them."""
        if not self._loans:
            return []
        held = [b for b in (r() for r in self._loans) if b is not None]
        self._loans = [weakref.ref(b) for b in held if b.block is not block]
        return [b for b in held if b.block is block]

    @property
    def tensor(self) -> Tensor:
        """The tensor itself, whose memory a captured step may own; for captured steps."""
        return self._value

    def bind(self, tensor: Tensor) -> None:
        """Keep ``tensor``, whose memory a captured step owns."""
        self._value, self.owned = self._prepared(tensor), True
        Cell.touched = next(_touched)

    @property
    def device(self) -> Device:
        """Where the tensor lives."""
        return self._value.device

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self._value.shape


def host_numbers(device: Device, callback: Callable[[], Sequence[Scalar]]) -> list[Tensor | Scalar]:
    """Return the numbers of ``callback``; in a captured function, tensors that hold those of each call."""
    found = device.backend.host(callback)
    return [x if isinstance(x, bool | int | float) else Tensor(device, x) for x in found]
