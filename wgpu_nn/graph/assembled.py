"""A pass from Program to Program: slices of what was put together from parts are the parts themselves.

The gradient of a slice is zeros with a region replaced, and several of them are added up; often just these regions are then
asked for again.
"""

from __future__ import annotations

from dataclasses import replace

from wgpu_nn.graph.program import Instr, Program, Ref
from wgpu_nn.ops import Spec
from wgpu_nn.shape import Range

Ranges = tuple[Range, ...]


def assembled(program: Program) -> Program:
    """Replace slices of assigned regions, and of sums of such, by what was assigned or by what lies beside it."""
    return _Parts(program).run()


class _Parts:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.made: dict[Ref, Instr] = {}
        self.kept: list[Instr] = []
        self.next = max((r.id for r in program.specs()), default=0)

    def run(self) -> Program:
        names: dict[Ref, Ref] = {}
        for old in self.program.instrs:
            operands = tuple(names.get(x, x) if isinstance(x, Ref) else x for x in old.operands)
            i = replace(old, operands=operands)
            found = self._part(i.refs[0], i.attr("ranges"), i) if i.op == "slice" else None
            if found is None:
                self._keep(i)
            else:
                names[i.out] = found
        return self.program.with_instrs(self.kept, names)

    def _keep(self, i: Instr) -> Ref:
        self.made[i.out] = i
        self.kept.append(i)
        return i.out

    def _part(self, ref: Ref, ranges: Ranges, asked: Instr) -> Ref | None:
        """Return the elements that ``ranges`` name of ``ref``, if they can be had without it."""
        i = self.made.get(ref)
        if i is None:
            return None
        if i.op == "full":
            attrs = tuple((k, asked.spec.shape if k == "shape" else v) for k, v in i.attrs)
            return self._new("full", i.operands, attrs, asked)
        if i.op == "slice_assign":
            if i.attr("ranges") == ranges:
                return i.refs[1]
            return self._part(i.refs[0], ranges, asked) if _apart(i.attr("ranges"), ranges) else None
        if i.op == "add" and len(i.refs) == 2 and all(self._is_whole(r, i.spec) for r in i.refs):
            x, y = (self._part(r, ranges, asked) for r in i.refs)
            return None if x is None or y is None else self._new("add", (x, y), (), asked)
        return None

    def _is_whole(self, ref: Ref, spec: Spec) -> bool:
        """Whether ``ref`` is put together, and has the shape ``spec`` without being repeated."""
        i = self.made.get(ref)
        return i is not None and i.op in ("slice_assign", "add", "full") and i.spec == spec

    def _new(self, op: str, operands: tuple[object, ...], attrs: object, asked: Instr) -> Ref:
        self.next += 1
        made = Instr(Ref(self.next), op, operands, attrs, asked.spec, asked.where)  # pyright: ignore[reportArgumentType]
        return self._keep(made)


def _apart(one: Ranges, other: Ranges) -> bool:
    """Whether two regions have no element in common, as one ends before the other begins along some axis."""
    for a, b in zip(one, other, strict=True):
        (low_a, high_a), (low_b, high_b) = _bounds(a), _bounds(b)
        if high_a < low_b or high_b < low_a:
            return True
    return False


def _bounds(r: Range) -> tuple[int, int]:
    start, step, count = r
    ends = (start, start + step * (count - 1))
    return min(ends), max(ends)
