"""Trace: stands in for a backend while a function is captured, and records a Program instead of running it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wgpu_nn.backends.base import HostCallback, Traced, caller
from wgpu_nn.dtype import DType, Kind, Scalar, kind_of_scalar
from wgpu_nn.errors import CaptureError
from wgpu_nn.graph.program import Input, Instr, Program, Ref
from wgpu_nn.ops import Spec, infer


class Value(Traced):
    """A handle of the trace: a value that a captured step will compute."""

    __slots__ = ("ref", "trace")

    def __init__(self, trace: Trace, ref: Ref, spec: Spec) -> None:
        super().__init__(spec)
        self.trace, self.ref = trace, ref


class Trace:
    """Records ops. Handles of the backend that it stands in for become constants of the program."""

    def __init__(self, dtypes: Mapping[Kind, DType], spec_of: Callable[[Any], Spec]) -> None:
        self.dtypes = dtypes
        self._spec_of = spec_of
        self.inputs: list[Input] = []
        self.instrs: list[Instr] = []
        self.constants: dict[Ref, Any] = {}
        self.hosts: list[tuple[HostCallback, list[Ref]]] = []
        self.first: list[Scalar | np.ndarray] = []  # the host numbers of the call that is traced
        self.cells: dict[Any, Any] = {}  # state that was touched -> its tensor now
        self.states: dict[Ref, Any] = {}  # what stands for its first value -> the cell
        self._known: dict[int, tuple[Any, Value]] = {}
        self._count = 0
        self.open = True

    def input(self, role: str, spec: Spec) -> Value:
        """Return a new value from outside."""
        ref = self._next()
        self.inputs.append(Input(ref, role, spec))
        return Value(self, ref, spec)

    def host(self, callback: HostCallback) -> tuple[Value, ...]:
        """Return values that ``callback`` gives anew at every call of the step; the call that is traced counts.

        They are numbers, and arrays of the device's own element types.
        """
        first = callback()
        self.first += first
        values = tuple(self.input("host", self._spec_of_host(v)) for v in first)
        self.hosts.append((callback, [v.ref for v in values]))
        return values

    def _spec_of_host(self, value: Scalar | np.ndarray) -> Spec:
        if not isinstance(value, np.ndarray):
            return Spec((), self.dtypes[kind_of_scalar(value)])
        (dtype,) = [t for t in self.dtypes.values() if t.numpy == value.dtype]
        return Spec(value.shape, dtype)

    def run(self, op: str, *operands: Any, **attrs: Any) -> Value:
        """Record one op."""
        self.alive(op)
        given = [x if isinstance(x, bool | int | float) else self._value(op, x) for x in operands]
        spec = infer(op, [x.spec if isinstance(x, Value) else x for x in given], attrs, self.dtypes)
        refs = tuple(x.ref if isinstance(x, Value) else x for x in given)
        out = self._next()
        self.instrs.append(Instr(out, op, refs, tuple(sorted(attrs.items())), spec, caller()))
        return Value(self, out, spec)

    def alive(self, op: str) -> None:
        """Raise if the trace is over: a value escaped from a captured function."""
        if not self.open:
            raise CaptureError(f"{op}: uses a value of a captured function after it was captured; return it instead")

    def _value(self, op: str, handle: Any) -> Value:
        if isinstance(handle, Value):
            if handle.trace is not self:
                raise CaptureError(
                    f"{op}: uses a value that escaped from another captured function; return it from there"
                )
            return handle
        if id(handle) not in self._known:
            value = self.input("const", self._spec_of(handle))
            self.constants[value.ref] = handle
            self._known[id(handle)] = (handle, value)
        return self._known[id(handle)][1]

    def _next(self) -> Ref:
        self._count += 1
        return Ref(self._count - 1)

    def program(self, outputs: Sequence[Any], updates: Mapping[Ref, Any]) -> Program:
        """Return what was recorded; outputs and new state may be constants as well."""
        returned = tuple(self._value("return", x).ref for x in outputs)
        replaced = {state: self._value("state", x).ref for state, x in updates.items()}
        self.open = False
        return Program(tuple(self.inputs), tuple(self.instrs), returned, replaced)
