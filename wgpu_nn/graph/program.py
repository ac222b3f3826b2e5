"""Program: a traced function as data, and its text; knows no device and no tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wgpu_nn.dtype import DType, Scalar
from wgpu_nn.ops import Spec


@dataclass(frozen=True, slots=True)
class Ref:
    """A value of a program, by number."""

    id: int

    def __repr__(self) -> str:
        return f"%{self.id}"


Operand = Ref | Scalar
Attrs = tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Instr:
    """One op: ``out = op(operands)``. ``where`` is the user's line that asked for it."""

    out: Ref
    op: str
    operands: tuple[Operand, ...]
    attrs: Attrs
    spec: Spec
    where: str = field(default="", compare=False)

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The operands that are values."""
        return tuple(x for x in self.operands if isinstance(x, Ref))

    def attr(self, name: str) -> Any:
        """Return one attribute."""
        return dict(self.attrs)[name]


@dataclass(frozen=True, slots=True)
class Input:
    """A value that comes from outside: an argument, state, a host number of this call, or a constant tensor."""

    ref: Ref
    role: str  # arg, state, host or const
    spec: Spec


@dataclass(frozen=True, slots=True)
class Program:
    """Instructions in order, what they start from, what they return, and the state that they replace."""

    inputs: tuple[Input, ...]
    instrs: tuple[Instr, ...]
    outputs: tuple[Ref, ...]
    updates: Mapping[Ref, Ref]  # state -> its new value

    def with_instrs(self, instrs: list[Instr], renamed: Mapping[Ref, Ref] | None = None) -> Program:
        """Return the program with other instructions, and results renamed."""
        names = renamed or {}
        return replace(
            self,
            instrs=tuple(instrs),
            outputs=tuple(names.get(r, r) for r in self.outputs),
            updates={s: names.get(r, r) for s, r in self.updates.items()},
        )

    def specs(self) -> dict[Ref, Spec]:
        """Return the shape and element type of every value."""
        found = {i.ref: i.spec for i in self.inputs}
        found.update({i.out: i.spec for i in self.instrs})
        return found

    def results(self) -> set[Ref]:
        """Return the values that outlive the program."""
        return {*self.outputs, *self.updates.values()}

    def uses(self) -> dict[Ref, list[Instr]]:
        """Return the instructions that read each value."""
        found: dict[Ref, list[Instr]] = {}
        for i in self.instrs:
            for r in dict.fromkeys(i.refs):
                found.setdefault(r, []).append(i)
        return found

    def __str__(self) -> str:
        lines = [f"{i.ref} = {i.role} {i.spec}" for i in self.inputs]
        for i in self.instrs:
            attrs = "".join(f" {k}={_short(v)}" for k, v in i.attrs)
            lines.append(f"{i.out} = {i.op}({', '.join(map(_short, i.operands))}){attrs} {i.spec}")
        lines.append(f"return {', '.join(map(str, self.outputs)) or 'nothing'}")
        lines += [f"{state} <- {new}" for state, new in self.updates.items()]
        return "\n".join(lines)


def _short(value: object) -> str:
    if isinstance(value, DType):
        return value.name
    if isinstance(value, float):
        return f"{value:.8g}"
    return str(value).replace(" ", "")
