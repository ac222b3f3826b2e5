"""Fusion: groups a program's instructions into units that are one launch each. Pure: knows sizes, no device.

Maps over equally many elements share a kernel. A map that alone reads the result of a convolution, a product, a pooling
or a reduction runs inside of it, before the store; one that alone feeds a reduction runs inside of it, at the load.
Random numbers, counts and fills are computed again wherever they are read, and never stored for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from wgpu_nn.graph.program import Attrs, Instr, Program, Ref
from wgpu_nn.ops import OPS, Category, Spec
from wgpu_nn.shape import size

# Routines whose kernels take a chain before they store.
FINISHING = frozenset(("matmul", "conv2d", "conv2d_input_grad", "adaptive_avg_pool2d"))
# Reductions that take chains at both ends.
REDUCING = frozenset(("sum", "mean", "prod", "max", "min", "any", "all"))
# Maps that cost less than storing their result: made again by each reader from their one tensor.
LIGHT = frozenset(("eq", "ne", "lt", "le", "gt", "ge", "is_nan", "is_inf", "logical_not", "cast", "neg", "abs"))


@dataclass(eq=False)
class Unit:
    """One launch: at most one routine, the maps that run with it, and results that its kernel computes besides."""

    maps: list[Instr] = field(default_factory=list[Instr])
    core: Instr | None = None
    before: Unit | None = None  # the maps at a reduction's load
    sums: Instr | None = None  # a sum that the core's kernel takes along

    @property
    def instrs(self) -> list[Instr]:
        """All instructions of the unit."""
        parts = [*(self.before.instrs if self.before else []), *([self.core] if self.core else []), *self.maps]
        return [*parts, *([self.sums] if self.sums else [])]


@dataclass
class Fused:
    """A program cut into units, in an order that respects what each reads."""

    program: Program
    units: list[Unit]
    cheap: dict[Ref, Instr]  # computed where they are read
    source: Callable[[Ref], Ref]
    touched: Callable[[Unit], set[Ref]]
    stored: Callable[[Unit], list[Instr]]
    groups: list[Group]


@dataclass
class Group:
    """Units that do the same to other tensors, as an optimizer's do: one launch over all, side by side.

    ``leaves`` gives, per operand of that many elements, each unit's value; ``outs`` likewise the results.
    """

    units: list[Unit]
    leaves: list[list[Ref]]
    outs: list[list[Ref]]


def lower(program: Program) -> Program:
    """Write the gradient of pooling into equal bins as views and a division, which fuse; exactly the same numbers."""
    specs = program.specs()
    count = max((r.id for r in specs), default=0)
    out: list[Instr] = []
    for i in program.instrs:
        (g, *_), (n, c, h, w) = (i.refs or (Ref(0),)), (*i.spec.shape, 0, 0, 0, 0)[:4]
        if i.op != "adaptive_avg_pool2d_grad" or h % specs[g].shape[2] or w % specs[g].shape[3]:
            out.append(i)
            continue
        oh, ow = specs[g].shape[2:]
        rows, columns = h // oh, w // ow
        apart = (n, c, oh, rows, ow, columns)
        steps: list[tuple[str, tuple[object, ...], tuple[int, ...]]] = [
            ("reshape", (), (n, c, oh, 1, ow, 1)),
            ("expand", (), apart),
            ("div", (float(rows * columns),), apart),
        ]
        at = g
        for op, numbers, shape in steps:
            count += 1
            attrs: Attrs = (("shape", shape),) if op != "div" else ()
            made = Instr(Ref(count), op, (at, *numbers), attrs, Spec(shape, i.spec.dtype), i.where)  # pyright: ignore[reportArgumentType]
            out.append(made)
            at = made.out
        out.append(Instr(i.out, "reshape", (at,), (("shape", i.spec.shape),), i.spec, i.where))
    return program.with_instrs(out)


def fuse(program: Program, bindings: int) -> Fused:
    """Return the program cut into units that bind at most ``bindings`` buffers each."""
    program = lower(program)
    return _Fuser(program, bindings).run()


class _Fuser:
    def __init__(self, program: Program, bindings: int) -> None:
        self.program, self.bindings = program, bindings
        self.specs = program.specs()
        self.made = {i.out: i for i in program.instrs}
        self.uses = program.uses()
        self.results = program.results()
        self.hosts = {i.ref for i in program.inputs if i.role == "host"}
        self.cheap: dict[Ref, Instr] = {}
        self.unit: dict[Ref, Unit] = {}
        self.order = {i.out: n for n, i in enumerate(program.instrs)}

    def run(self) -> Fused:
        for i in self.program.instrs:
            if self._is_cheap(i):
                self.cheap[i.out] = i
        for i in self.program.instrs:
            row = OPS[i.op]
            if row.category is Category.VIEW:
                continue
            if i.out in self.cheap:
                if self._needs_memory(i):
                    self.unit[i.out] = Unit(maps=[i])
                continue
            if row.category is Category.MAP:
                self._join(i)
            else:
                self.unit[i.out] = Unit(core=i)
        self._attach_sums()
        self._attach_finishes()
        self._attach_starts()
        units = self._sorted()
        return Fused(self.program, units, self.cheap, self.source, self.touched, self.stored, self._groups(units))

    # --- what is what ----------------------------------------------------------------------------------------------
    def _is_cheap(self, i: Instr) -> bool:
        """Sources, what follows from them and from host numbers alone, and light maps of one tensor."""
        category = OPS[i.op].category
        if category not in (Category.SOURCE, Category.MAP):
            return False
        if i.op in LIGHT and len(i.refs) == 1 and self.source(i.refs[0]) == self.behind(i.refs[0]):
            return size(self.specs[i.refs[0]].shape) == size(i.spec.shape)
        return all(
            r in self.hosts or (r in self.cheap and size(self.specs[r].shape) in (1, size(i.spec.shape)))
            for r in i.refs
        )

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
                found += [*self.readers(u.out), *([u] if u.out in self.unit else [])]
            else:
                found.append(u)
        return found

    def escapes(self, ref: Ref) -> bool:
        """Whether ``ref`` or a view of it is a result of the program."""
        views = [u.out for u in self.uses.get(ref, []) if OPS[u.op].category is Category.VIEW]
        return ref in self.results or any(self.escapes(v) for v in views)

    # --- dependencies ----------------------------------------------------------------------------------------------
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

    def _inputs(self, unit: Unit) -> set[Ref]:
        """Return the values of other units that ``unit`` reads."""
        return {r for r in self.touched(unit) if r in self.unit}

    def _reaches(self, start: Unit, goals: set[int], skip: set[int]) -> bool:
        """Whether some unit of ``goals`` is needed for ``start``, by way of units that are not in ``skip``."""
        todo, seen = [start], {id(start)}
        while todo:
            for r in self._inputs(todo.pop()):
                u = self.unit[r]
                if id(u) in goals:
                    return True
                if id(u) not in seen and id(u) not in skip:
                    seen.add(id(u))
                    todo.append(u)
        return False

    def _mergeable(self, a: Unit, b: Unit) -> bool:
        """Whether two units can run as one: neither needs the other by way of a third."""
        for first, second in ((a, b), (b, a)):
            for r in self._inputs(second):
                middle = self.unit[r]
                if middle is not first and middle is not second and self._reaches_or_is(middle, first):
                    return False
        return True

    def _reaches_or_is(self, start: Unit, goal: Unit) -> bool:
        return start is goal or self._reaches(start, {id(goal)}, set())

    # --- maps ------------------------------------------------------------------------------------------------------
    def _join(self, i: Instr) -> None:
        """Put a map with the maps that it reads, where all have equally many elements."""
        unit = Unit(maps=[i])
        self.unit[i.out] = unit
        for r in i.refs:
            s = self.source(r)
            other = self.unit.get(s)
            if other is None or other is unit or other.core is not None or s in self.cheap:
                continue
            if size(self.specs[s].shape) != size(i.spec.shape) or not self._mergeable(other, unit):
                continue
            if self._bound(other.maps + unit.maps) > self.bindings or not self._aligned(other.maps + unit.maps):
                continue
            other.maps += unit.maps
            for m in unit.maps:
                self.unit[m.out] = other
            unit = other
        unit.maps.sort(key=lambda m: self.order[m.out])

    def _aligned(self, maps: list[Instr]) -> bool:
        """Whether maps read each other's results in place only: not transposed, sliced or repeated."""
        own = {m.out for m in maps}
        return all(self.source(r) in own for m in maps for r in m.refs if self.behind(r) in own)

    def _bound(self, maps: list[Instr]) -> int:
        unit = Unit(maps=maps)
        read = {r for r in self.touched(unit) if r not in self.cheap}
        return len(read) + len(self.stored(unit))

    def stored(self, unit: Unit) -> list[Instr]:
        """Return the maps of a unit whose results something else reads."""
        own = {m.out for m in unit.maps}
        return [m for m in unit.maps if self.escapes(m.out) or any(u.out not in own for u in self.readers(m.out))]

    # --- around routines -------------------------------------------------------------------------------------------
    def _units(self) -> list[Unit]:
        return list(dict.fromkeys(self.unit.values()))

    def _attach_finishes(self) -> None:
        for unit in self._units():
            if unit.core is not None or not unit.maps or unit.maps[0].out in self.cheap:
                continue
            stored = self.stored(unit)
            if len(stored) != 1 or stored[0].spec.dtype.name != "f32":
                continue
            own = {m.out for m in unit.maps}
            best: Unit | None = None
            for r in dict.fromkeys(self.source(r) for m in unit.maps for r in m.refs):
                core = self.unit.get(r)
                if core is None or core.core is None or core.maps or core.core.out != r:
                    continue
                i = core.core
                fits = i.op in FINISHING or (i.op in REDUCING and i.spec.dtype.name == "f32")
                alone = not self.escapes(r) and all(u.out in own for u in self.readers(r)) and self._only_reshaped(r)
                if not fits or not alone or size(i.spec.shape) != size(stored[0].spec.shape):
                    continue
                if self._bound(unit.maps) + 4 > self.bindings:
                    continue
                if best is None or self.order[r] > self.order[best.core.out]:  # pyright: ignore[reportOptionalMemberAccess]
                    best = core
            # The maps then run when the routine does: nothing else that they read may depend on it, and nothing does, as
            # they alone read it.
            if best is not None:
                best.maps = unit.maps
                for m in unit.maps:
                    self.unit[m.out] = best

    def _only_reshaped(self, ref: Ref) -> bool:
        """Whether every view of ``ref`` is a reshape."""
        views = [u for u in self.uses.get(ref, []) if OPS[u.op].category is Category.VIEW]
        return all(v.op == "reshape" and self._only_reshaped(v.out) for v in views)

    def _attach_starts(self) -> None:
        for unit in self._units():
            i = unit.core
            if i is None or i.op not in REDUCING or unit.before is not None:
                continue
            r = self.source(i.refs[0])
            maps = self.unit.get(r)
            if maps is None or maps.core is not None or maps is unit or self.escapes(r) or r in self.cheap:
                continue
            if [u.out for u in self.readers(r)] != [i.out] or [m.out for m in self.stored(maps)] != [r]:
                continue
            if not self._only_reshaped(r) or self._bound(maps.maps) + 4 > self.bindings:
                continue
            unit.before = maps
            for m in maps.maps:
                self.unit[m.out] = unit

    def _attach_sums(self) -> None:
        """Let the gradient of a weight bring that of its bias: both read the same cotangent."""
        for i in self.program.instrs:
            if i.op not in ("conv2d_weight_grad", "matmul"):
                continue
            g = i.refs[1]
            axes = (0, 2, 3) if i.op == "conv2d_weight_grad" else (0,)
            if i.op == "matmul" and len(self.specs[g].shape) != 2:
                continue
            if i.op == "conv2d_weight_grad" and i.attr("groups") != 1:
                continue
            for u in self.uses.get(g, []):
                mine = self.unit[i.out]
                apart = u.op == "sum" and u.attr("axes") == axes and mine.sums is None and self.unit[u.out].core is u
                if apart and self._mergeable(mine, self.unit[u.out]):
                    mine.sums = u
                    self.unit[u.out] = mine

    # --- units that do the same ------------------------------------------------------------------------------------
    def _groups(self, units: list[Unit]) -> list[Group]:
        """Find units that replace state by the same formula."""
        updated = {self.source(new): state for state, new in self.program.updates.items()}
        found: dict[object, list[tuple[Unit, list[Ref], list[Ref]]]] = {}
        for unit in units:
            outs = [m.out for m in self.stored(unit)] if unit.core is None else []
            own = {m.out for m in unit.maps}
            if not outs or any(o not in updated or any(u.out not in own for u in self.readers(o)) for o in outs):
                continue
            sign, leaves = self._signature(unit)
            if sign is None or not self._movable([*(updated[o] for o in outs)], leaves, unit, units):
                continue
            replaced = tuple(leaves.index(updated[o]) if updated[o] in leaves else -1 for o in outs)
            if -1 in replaced:
                continue
            roles = tuple("state" if n in replaced else "temp" for n in range(len(leaves)))
            if any(role == "temp" and r not in self.made for role, r in zip(roles, leaves, strict=True)):
                continue
            found.setdefault((sign, replaced, roles), []).append((unit, leaves, outs))
        groups: list[Group] = []
        for (_, _, roles), members in found.items():  # pyright: ignore[reportGeneralTypeIssues]
            seen: set[Ref] = set()
            kept: list[tuple[Unit, list[Ref], list[Ref]]] = []
            for unit, leaves, outs in members:
                if not seen & set(leaves):
                    kept.append((unit, leaves, outs))
                    seen |= set(leaves)
            if len(kept) > 1:
                columns = [[leaves[n] for _, leaves, _ in kept] for n in range(len(roles))]  # pyright: ignore[reportUnknownArgumentType]
                results = [[outs[n] for _, _, outs in kept] for n in range(len(kept[0][2]))]
                groups.append(Group([u for u, _, _ in kept], columns, results))
        return groups

    def _movable(self, states: list[Ref], leaves: list[Ref], unit: Unit, units: list[Unit]) -> bool:
        """Whether nothing reads the old state after ``unit``, wherever later it may run."""
        if any(s in self.results for s in states) or any(self.escapes(r) for r in leaves):
            return False
        later = units[units.index(unit) + 1 :]
        return not any(self.touched(u) & set(states) for u in later)

    def _signature(self, unit: Unit) -> tuple[object | None, list[Ref]]:
        """Return a unit's formula with its tensors numbered, and those tensors; None if one is not of its size."""
        count = size(unit.maps[0].spec.shape)
        leaves: list[Ref] = []
        steps: dict[Ref, int] = {}
        parts: list[object] = []
        for m in unit.maps:
            operands: list[object] = []
            for x in m.operands:
                if not isinstance(x, Ref):
                    operands.append((type(x).__name__, str(x)))
                    continue
                s = self.source(x)
                if s in steps:
                    operands.append(("step", steps[s]))
                elif s in self.cheap:
                    return None, []
                elif size(self.specs[s].shape) == 1:
                    operands.append(("one", s))
                elif size(self.specs[s].shape) == count and s == self.behind(s):
                    if s not in leaves:
                        leaves.append(s)
                    operands.append(("leaf", leaves.index(s)))
                else:
                    return None, []
            steps[m.out] = len(steps)
            parts.append((m.op, tuple(operands), m.spec.dtype.name, tuple(a for a in m.attrs if a[0] == "dtype")))
        return (tuple(parts), tuple(steps[o.out] for o in self.stored(unit))), leaves

    # --- order -----------------------------------------------------------------------------------------------------
    def _sorted(self) -> list[Unit]:
        """Return the units so that each comes after all that it reads, and otherwise as the program has them."""
        units = sorted(self._units(), key=lambda u: max(self.order[i.out] for i in u.instrs))
        done: set[int] = set()
        out: list[Unit] = []

        def visit(u: Unit) -> None:
            if id(u) in done:
                return
            done.add(id(u))
            for r in sorted(self._inputs(u), key=lambda r: self.order[r]):
                visit(self.unit[r])
            out.append(u)

        for u in units:
            visit(u)
        return out


def renumbered(program: Program) -> Program:
    """Return the program with values numbered in order; for printing."""
    names = {r: Ref(n) for n, r in enumerate([*(i.ref for i in program.inputs), *(i.out for i in program.instrs)])}
    inputs = tuple(replace(i, ref=names[i.ref]) for i in program.inputs)
    instrs = [
        replace(i, out=names[i.out], operands=tuple(names[x] if isinstance(x, Ref) else x for x in i.operands))
        for i in program.instrs
    ]
    updates = {names[s]: names[r] for s, r in program.updates.items()}
    return replace(
        program, inputs=inputs, instrs=tuple(instrs), outputs=tuple(names[r] for r in program.outputs), updates=updates
    )
