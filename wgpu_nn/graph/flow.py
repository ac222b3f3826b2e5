"""Flow: what reads what in a program, views and cheap values seen through; and the units that it is cut into."""

from __future__ import annotations

from dataclasses import dataclass, field

from wgpu_nn.graph.program import Instr, Program, Ref
from wgpu_nn.ops import OPS, Category
from wgpu_nn.shape import size

# Maps that cost less than storing their result: made again by each reader from their one tensor.
LIGHT = frozenset(("eq", "ne", "lt", "le", "gt", "ge", "is_nan", "is_inf", "logical_not", "cast", "neg", "abs"))


@dataclass(eq=False)
class Unit:
    """One launch: at most one routine, the maps that run with it, and results that its kernel computes besides."""

    maps: list[Instr] = field(default_factory=list[Instr])
    core: Instr | None = None
    before: Unit | None = None  # the maps at a reduction's load
    along: Instr | None = None  # what the core's kernel computes besides: a sum, or losses beside their gradient

    @property
    def instrs(self) -> list[Instr]:
        """All instructions of the unit."""
        parts = [*(self.before.instrs if self.before else []), *([self.core] if self.core else []), *self.maps]
        return [*parts, *([self.along] if self.along else [])]


class Flow:
    """Questions about a program, answered without executing it.

    ``cheap`` values (random numbers, counts, fills, light maps) are computed wherever they are read; those in ``kept``
    are also stored, as something that cannot compute them reads them.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.specs = program.specs()
        self.made = {i.out: i for i in program.instrs}
        self.uses = program.uses()
        self.results = program.results()
        self.hosts = {i.ref for i in program.inputs if i.role == "host" and not i.spec.shape}
        self.order = {i.out: n for n, i in enumerate(program.instrs)}
        self.cheap: dict[Ref, Instr] = {}
        for i in program.instrs:
            if self._is_cheap(i):
                self.cheap[i.out] = i
        self.kept = {r for r, i in self.cheap.items() if self._needs_memory(i)}

    def _is_cheap(self, i: Instr) -> bool:
        """Sources, what follows from them and from host numbers alone, and light maps of one tensor."""
        category = OPS[i.op].category
        if category not in (Category.SOURCE, Category.MAP):
            return False
        if i.op in LIGHT and len(i.refs) == 1 and self.source(i.refs[0]) == self.behind(i.refs[0]):
            if (
                i.spec.dtype.nbytes < self.specs[i.refs[0]].dtype.nbytes
            ):  # the result costs less to store than the tensor
                return False
            return size(self.specs[i.refs[0]].shape) == size(i.spec.shape)
        return all(
            r in self.hosts
            or (r in self.cheap and size(self.specs[r].shape) in (1, size(i.spec.shape)) and not self.widens(r))
            for r in i.refs
        )

    def widens(self, ref: Ref) -> bool:
        """Whether ``ref`` is a tensor of halves in f32: part of its load, from which nothing cheap follows."""
        i = self.made.get(ref)
        return i is not None and i.op == "cast" and self.specs[i.refs[0]].dtype.nbytes < i.spec.dtype.nbytes

    def _needs_memory(self, i: Instr) -> bool:
        """Whether a cheap value is read by something that cannot compute it in place."""
        if i.out in self.results:
            return True
        return any(not self._inlines(u, i.out) for u in self.uses.get(i.out, []))

    def _inlines(self, user: Instr, ref: Ref) -> bool:
        if OPS[user.op].category is Category.MAP:
            return size(user.spec.shape) == size(self.specs[ref].shape) or size(self.specs[ref].shape) == 1
        if user.op == "reshape":
            return user.out not in self.results and all(self._inlines(u, user.out) for u in self.uses.get(user.out, []))
        return False

    def source(self, ref: Ref) -> Ref:
        """Return what ``ref`` shows through reshapes that keep every element's place."""
        while ref in self.made and self.made[ref].op == "reshape":
            ref = self.made[ref].refs[0]
        return ref

    def behind(self, ref: Ref) -> Ref:
        """Return what ``ref`` shows through views of any kind."""
        while ref in self.made and OPS[self.made[ref].op].category is Category.VIEW:
            ref = self.made[ref].refs[0]
        return ref

    def readers(self, ref: Ref) -> list[Instr]:
        """Return the instructions that read ``ref``, a view of it, or what they compute again from it."""
        found: list[Instr] = []
        for u in self.uses.get(ref, []):
            if OPS[u.op].category is Category.VIEW:
                found += self.readers(u.out)
            elif u.out in self.cheap:
                found += [*self.readers(u.out), *([u] if u.out in self.kept else [])]
            else:
                found.append(u)
        return found

    def escapes(self, ref: Ref) -> bool:
        """Whether ``ref`` or a view of it is a result of the program."""
        views = [u.out for u in self.uses.get(ref, []) if OPS[u.op].category is Category.VIEW]
        return ref in self.results or any(self.escapes(v) for v in views)

    def touched(self, unit: Unit) -> set[Ref]:
        """Return the values that ``unit`` reads from outside, cheap ones and what they are made from alike."""
        own = {i.out for i in unit.instrs}
        seen: set[Ref] = set()
        todo = [r for i in unit.instrs for r in i.refs]
        while todo:
            r = self.behind(todo.pop())
            if r not in own and r not in seen:
                seen.add(r)
                if r in self.cheap:
                    todo += self.cheap[r].refs
        return seen

    def stored(self, unit: Unit) -> list[Instr]:
        """Return the maps of a unit whose results something else reads."""
        own = {m.out for m in unit.maps}
        return [m for m in unit.maps if self.escapes(m.out) or any(u.out not in own for u in self.readers(m.out))]

    def only_reshaped(self, ref: Ref) -> bool:
        """Whether every view of ``ref`` is a reshape."""
        views = [u for u in self.uses.get(ref, []) if OPS[u.op].category is Category.VIEW]
        return all(v.op == "reshape" and self.only_reshaped(v.out) for v in views)
