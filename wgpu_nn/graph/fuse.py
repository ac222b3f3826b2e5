"""Fusion: groups a program's instructions into units that are one launch each. Pure: knows sizes, no device.

Maps over equally many elements share a kernel. A map that alone reads the result of a convolution, a product, a pooling
or a reduction runs inside of it, before the store; one that alone feeds a reduction runs inside of it, at the load. A small
reduction to one number is made again by each element of what alone reads it.
Random numbers, counts and fills are computed again wherever they are read, and never stored for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from wgpu_nn.dtype import Bool, Float
from wgpu_nn.graph.flow import Flow, Unit
from wgpu_nn.graph.groups import Group, find_groups
from wgpu_nn.graph.program import Attrs, Instr, Program, Ref
from wgpu_nn.ops import OPS, Category, Spec
from wgpu_nn.shape import size

NORMS = frozenset(("layer_norm", "layer_norm_grad", "rms_norm", "rms_norm_grad"))
SOFTMAXES = frozenset(("softmax", "log_softmax"))
# Routines whose kernels take a chain before they store.
CONVOLUTIONS = frozenset(("conv2d", "conv2d_input_grad", "conv3d", "conv3d_input_grad"))
FINISHING = NORMS | SOFTMAXES | CONVOLUTIONS | {"matmul", "adaptive_avg_pool2d"}
# Routines whose kernels sum the cotangent that they read along with their own result -> the axes of that sum.
SUMMING = {"matmul": (0,), "conv2d_weight_grad": (0, 2, 3), "conv3d_weight_grad": (0, 2, 3, 4)}
SPREAD = 1 << 14  # elements that are folded again and again at most: a moment's work for a GPU, less than a launch
# Reductions that take chains at both ends.
REDUCING = frozenset(("sum", "mean", "prod", "max", "min", "any", "all", "logsumexp"))


@dataclass(frozen=True, slots=True)
class Fused:
    """A program cut into units, in an order that respects what each reads."""

    program: Program
    flow: Flow
    units: list[Unit]
    groups: list[Group]


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
        self.flow = Flow(program)
        self.unit: dict[Ref, Unit] = {}

    def run(self) -> Fused:
        for i in self.program.instrs:
            row = OPS[i.op]
            if row.category is Category.VIEW:
                continue
            if i.out in self.flow.cheap:
                if i.out in self.flow.kept:
                    self.unit[i.out] = Unit(maps=[i])
                continue
            if row.category is Category.MAP:
                self._join(i)
            else:
                self.unit[i.out] = Unit(core=i)
        self._attach_sums()
        self._attach_losses()
        self._attach_finishes()
        self._attach_starts()
        units = self._sorted()
        return Fused(self.program, self.flow, units, find_groups(self.flow, units))

    # --- dependencies ----------------------------------------------------------------------------------------------
    def _inputs(self, unit: Unit) -> set[Ref]:
        """Return the values of other units that ``unit`` reads."""
        return {r for r in self.flow.touched(unit) if r in self.unit}

    def _needs(self, start: Unit, goal: Unit) -> bool:
        """Whether ``start`` is ``goal``, or is computed from what that computes."""
        todo, seen = [start], {id(start)}
        while todo:
            unit = todo.pop()
            if unit is goal:
                return True
            for r in self._inputs(unit):
                other = self.unit[r]
                if id(other) not in seen:
                    seen.add(id(other))
                    todo.append(other)
        return False

    def _mergeable(self, a: Unit, b: Unit) -> bool:
        """Whether two units can run as one: neither needs the other by way of a third."""
        for first, second in ((a, b), (b, a)):
            for r in self._inputs(second):
                middle = self.unit[r]
                if middle is not first and middle is not second and self._needs(middle, first):
                    return False
        return True

    # --- maps ------------------------------------------------------------------------------------------------------
    def _join(self, i: Instr) -> None:
        """Put a map with the maps that it reads, where all have equally many elements."""
        unit = Unit(maps=[i])
        self.unit[i.out] = unit
        for r in i.refs:
            s = self.flow.source(r)
            other = self.unit.get(s)
            if other is None or other is unit or other.core is not None or s in self.flow.cheap:
                continue
            if size(self.flow.specs[s].shape) != size(i.spec.shape) or not self._mergeable(other, unit):
                continue
            if self._bound(other.maps + unit.maps, alone=True) > self.bindings or not self._aligned(
                other.maps + unit.maps
            ):
                continue
            other.maps += unit.maps
            for m in unit.maps:
                self.unit[m.out] = other
            unit = other
        unit.maps.sort(key=lambda m: self.flow.order[m.out])

    def _aligned(self, maps: list[Instr]) -> bool:
        """Whether maps read each other's results in place only: not transposed, sliced or repeated."""
        own = {m.out for m in maps}
        return all(self.flow.source(r) in own for m in maps for r in m.refs if self.flow.behind(r) in own)

    def _bound(self, maps: list[Instr], alone: bool = False) -> int:
        """Return how many buffers maps bind: inside of another kernel, or in one ``alone``."""
        unit = Unit(maps=maps)
        return len(self._leaves(maps, alone)) + len(self.flow.stored(unit))

    def _leaves(self, maps: list[Instr], alone: bool) -> set[object]:
        """Return what maps bind to read: a tensor that is seen in several ways is bound as often.

        In a kernel alone the host numbers of one type are bound as one, where they are not the map's only elements.
        """
        own = {m.out for m in maps}
        found: set[object] = set()
        todo = list(maps)
        for i in todo:
            for r in i.refs:
                s = self.flow.source(r)
                if s in own:
                    continue
                if s in self.flow.cheap and size(self.flow.specs[s].shape) in (1, size(i.spec.shape)):
                    own.add(s)
                    todo.append(self.flow.cheap[s])
                else:
                    same = size(self.flow.specs[s].shape) == size(i.spec.shape)
                    if alone and s in self.flow.hosts and not same:
                        found.add(("host", self.flow.specs[s].dtype.name))
                        continue
                    found.add(s if same else (s, self.flow.specs[r].shape, i.spec.shape))
        return found

    # --- around routines -------------------------------------------------------------------------------------------
    def _units(self) -> list[Unit]:
        return list(dict.fromkeys(self.unit.values()))

    def _attach_finishes(self) -> None:
        for unit in self._units():
            if unit.core is not None or not unit.maps or unit.maps[0].out in self.flow.cheap:
                continue
            stored = self.flow.stored(unit)
            if len(stored) != 1 or stored[0].spec.dtype.kind is Bool:
                continue
            kind = stored[0].spec.dtype.kind
            own = {m.out for m in unit.maps}
            best: Unit | None = None
            for r in dict.fromkeys(self.flow.source(r) for m in unit.maps for r in m.refs):
                core = self.unit.get(r)
                if core is None or core.core is None or core.maps or core.core.out != r:
                    continue
                i = core.core
                fits = (i.op in FINISHING and kind is Float) or (i.op in REDUCING and i.spec.dtype.kind is kind)
                alone = (
                    not self.flow.escapes(r)
                    and all(u.out in own for u in self.flow.readers(r))
                    and self.flow.only_reshaped(r)
                )
                count = size(stored[0].spec.shape)
                if not fits or not alone or not (size(i.spec.shape) == count or self._spreads(i, count)):
                    continue
                if self._bound(unit.maps) + 4 > self.bindings:
                    continue
                if best is None or self.flow.order[r] > self.flow.order[best.core.out]:  # pyright: ignore[reportOptionalMemberAccess]
                    best = core
            # The maps then run when the routine does: nothing else that they read may depend on it, and nothing does, as
            # they alone read it.
            if best is not None:
                best.maps = unit.maps
                for m in unit.maps:
                    self.unit[m.out] = best

    def _spreads(self, i: Instr, count: int) -> bool:
        """Whether each of ``count`` elements may as well make a reduction's one result again, instead of a launch before."""
        folded = size(self.flow.specs[i.refs[0]].shape)
        return i.op in REDUCING and size(i.spec.shape) == 1 and count * folded <= SPREAD

    def _attach_starts(self) -> None:
        for unit in self._units():
            i = unit.core
            if i is None or i.op not in REDUCING or unit.before is not None:
                continue
            r = self.flow.source(i.refs[0])
            maps = self.unit.get(r)
            if maps is None or maps.core is not None or maps is unit or self.flow.escapes(r) or r in self.flow.cheap:
                continue
            if [u.out for u in self.flow.readers(r)] != [i.out] or [m.out for m in self.flow.stored(maps)] != [r]:
                continue
            if not self.flow.only_reshaped(r) or self._bound(maps.maps) + 4 > self.bindings:
                continue
            unit.before = maps
            for m in maps.maps:
                self.unit[m.out] = unit

    def _attach_sums(self) -> None:
        """Let the gradient of a weight bring that of its bias: both read the same cotangent."""
        for i in self.program.instrs:
            if i.op not in SUMMING:
                continue
            g, axes = i.refs[1], SUMMING[i.op]
            if i.op == "matmul" and len(self.flow.specs[g].shape) != 2:
                continue
            for u in self.flow.uses.get(g, []):
                if u.op == "sum" and u.attr("axes") == axes:
                    self._take_along(i, u)

    def _attach_losses(self) -> None:
        """Let the gradient of losses bring them: both read the same logits and targets."""
        for i in self.program.instrs:
            if i.op == "cross_entropy_grad":
                logits, targets = i.refs[-2:]
                for u in self.flow.uses.get(logits, []):
                    if u.op == "cross_entropy" and u.refs == (logits, targets):
                        self._take_along(i, u)

    def _take_along(self, i: Instr, other: Instr) -> None:
        """Compute ``other`` in the unit of ``i``, unless that must wait for it."""
        mine, its = self.unit[i.out], self.unit[other.out]
        apart = its.core is other and other.out not in self.flow.touched(mine)
        if mine.along is None and apart and self._mergeable(mine, its):
            mine.along = other
            self.unit[other.out] = mine

    # --- order -----------------------------------------------------------------------------------------------------
    def _sorted(self) -> list[Unit]:
        """Return the units so that each comes after all that it reads, and otherwise as the program has them."""
        units = sorted(self._units(), key=lambda u: max(self.flow.order[i.out] for i in u.instrs))
        done: set[int] = set()
        out: list[Unit] = []

        def visit(u: Unit) -> None:
            if id(u) in done:
                return
            done.add(id(u))
            for r in sorted(self._inputs(u), key=lambda r: self.flow.order[r]):
                visit(self.unit[r])
            out.append(u)

        for u in units:
            visit(u)
        return out
