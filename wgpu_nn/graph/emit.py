"""From fused units to launches: builds each unit's chains, and hands them to the planners of its routine."""

from __future__ import annotations

from collections.abc import Sequence

from wgpu_nn.dtype import DTYPES, DType
from wgpu_nn.graph.flow import Unit
from wgpu_nn.graph.fuse import NORMS, REDUCING, SOFTMAXES, Fused, fuse
from wgpu_nn.graph.groups import Group
from wgpu_nn.graph.order import side_by_side
from wgpu_nn.graph.plan import Chooser, Plan, StaticSite, described
from wgpu_nn.graph.program import Instr, Program, Ref
from wgpu_nn.kernels import Target, View, whole
from wgpu_nn.kernels.conv import run_conv2d, run_input_grad
from wgpu_nn.kernels.conv3d import run_conv3d, run_input_grad3d, run_weight_grad3d
from wgpu_nn.kernels.conv_weight import bias_place, run_weight_grad
from wgpu_nn.kernels.expressions import expression
from wgpu_nn.kernels.fused import Arg, Chain, Finish, Leaf, Link, leaf_of, number_arg, plan_fused_map
from wgpu_nn.kernels.loss import run_loss
from wgpu_nn.kernels.matmul import run_matmul
from wgpu_nn.kernels.norm import run_norm
from wgpu_nn.kernels.plan import Slot
from wgpu_nn.kernels.pool import run_pool
from wgpu_nn.kernels.reduce import run_reduce
from wgpu_nn.kernels.rows import run_rows
from wgpu_nn.ops import OPS, Category, Spec
from wgpu_nn.shape import broadcast_strides, size

ALIGN = 256  # bytes: where WebGPU lets a binding start


def plan_fused(program: Program, constants: dict[Ref, View], target: Target, chooser: Chooser | None = None) -> Plan:
    """Plan a program with fusion; ``chooser`` chooses variants instead of the rules."""
    plan = _Emitter(fuse(program, target.bindings), target, chooser).run(constants)
    plan.dispatches = side_by_side(plan.dispatches)
    return plan


class _ChainBuilder:
    """Collects the leaves and links of one chain."""

    def __init__(self, emitter: _Emitter, value: Ref | None) -> None:
        self.emitter, self.value = emitter, value
        self.leaves: list[Leaf] = []
        self.views: list[View] = []
        self.sources: list[Ref] = []  # what each leaf shows
        self.links: list[Link] = []
        self.step: dict[Ref, int] = {}

    def add(self, i: Instr, single: bool = False) -> int:
        """Append one map, or a cheap value that it reads; ``single`` ones are the same for every index."""
        types = _operand_types(i, self.emitter.specs)
        args = tuple(self._arg(x, i, t, single) for x, t in zip(i.operands, types, strict=True))
        first = types[1] if i.op == "where" else types[0] if types else i.spec.dtype
        text = expression(i.op, first, i.spec.dtype)
        if single:
            text = text.replace("i32(i)", "0").replace(", i)", ", 0u)")
        self.links.append(Link(text, args, i.spec.dtype.name))
        self.step[i.out] = len(self.links) - 1
        return self.step[i.out]

    def _arg(self, x: Ref | float | int | bool, i: Instr, dtype: DType, single: bool) -> Arg:
        if not isinstance(x, Ref):
            return number_arg(x, dtype)
        s = self.emitter.fused.flow.source(x)
        if s == self.value:
            return Arg("value", 0)
        if s in self.step:
            return Arg("step", self.step[s])
        cheap = self.emitter.fused.flow.cheap.get(s)
        if cheap is not None and size(cheap.spec.shape) in (1, size(i.spec.shape)):
            return Arg("step", self.add(cheap, single or (size(cheap.spec.shape) == 1 and size(i.spec.shape) != 1)))
        view = self.emitter.site.views[x]
        spread = view.seen(i.spec.shape, broadcast_strides(view.shape, view.strides, i.spec.shape))
        leaf = Leaf(view.dtype.name, False, view.offset, (), ()) if single else leaf_of(spread, i.spec.shape)
        for n, (known, v) in enumerate(zip(self.leaves, self.views, strict=True)):
            if v.buffer is view.buffer and known == leaf:
                return Arg("leaf", n)
        self.leaves.append(leaf)
        self.views.append(spread)
        self.sources.append(s)
        return Arg("leaf", len(self.leaves) - 1)

    def chain(self, outs: Sequence[Ref]) -> Chain:
        return Chain(tuple(self.leaves), tuple(self.links), tuple(self.step[r] for r in outs))


class _Emitter:
    def __init__(self, fused: Fused, target: Target, chooser: Chooser | None) -> None:
        self.fused, self.program = fused, fused.program
        self.specs = fused.program.specs()
        self.made = {i.out: i for i in fused.program.instrs}
        self.site = StaticSite(target, True, chooser)
        self.done: set[Ref] = set()  # states replaced in place
        self.arenas: dict[int, list[Slot]] = {}

    def run(self, constants: dict[Ref, View]) -> Plan:
        for n, group in enumerate(self.fused.groups):
            self.arenas[n] = self._make_arenas(group)
        self.site.begin(self.program, constants)
        grouped = {id(u): n for n, g in enumerate(self.fused.groups) for u in g.units}
        waiting = {n: len(g.units) for n, g in enumerate(self.fused.groups)}
        for position, unit in enumerate(self.fused.units):
            n = grouped.get(id(unit))
            if n is None:
                self._unit(unit, position)
                continue
            waiting[n] -= 1
            if not waiting[n]:
                self._group(self.fused.groups[n], self.arenas[n])
        for r in self.program.results():
            self._view(r)
        return self.site.end(self.program, self.done)

    # --- values ----------------------------------------------------------------------------------------------------
    def _view(self, ref: Ref) -> View:
        """Return where a value lies; views of others are made when they are asked for."""
        if ref not in self.site.views:
            i = self.made[ref]
            if OPS[i.op].category is Category.VIEW:
                self._view(i.refs[0])
                self.site.run(i)
        return self.site.views[ref]

    def _prepare(self, instrs: Sequence[Instr], own: set[Ref]) -> None:
        for i in instrs:
            for r in i.refs:
                s = self.fused.flow.source(r)
                if s in own:
                    continue
                if s in self.fused.flow.cheap and s not in self.site.views:
                    self._prepare([self.fused.flow.cheap[s]], own)
                else:
                    self._view(r)

    def _store(self, ref: Ref, view: View) -> None:
        spec = self.specs[ref]
        self.site.views[ref] = whole(spec.shape, spec.dtype, view.buffer)

    # --- units -----------------------------------------------------------------------------------------------------
    def _unit(self, unit: Unit, position: int) -> None:
        own = {i.out for i in unit.instrs}
        self._prepare(unit.instrs, own)
        self.site.doing = described(unit.instrs)
        if unit.core is None:
            self._maps(unit, position)
            return
        if self._large(unit):
            for i in unit.instrs:
                self._alone(i)
            return
        core = unit.core
        finish: Finish | None = None
        state: Ref | None = None
        result = core
        if unit.maps:
            result = self.fused.flow.stored(unit)[-1]
            builder = _ChainBuilder(self, core.out)
            for m in unit.maps:
                builder.add(m)
            if core.op in REDUCING:
                state = self._replaceable(result.out, builder, position, [])
            if state in self.fused.flow.touched(Unit(core=core, before=unit.before)):  # by other invocations, too
                state = None
            inplace = -1 if state is None else builder.sources.index(state)
            finish = Finish(builder.chain([result.out]), tuple(builder.views), inplace)
        if core.op in ("conv2d_weight_grad", "conv3d_weight_grad") and unit.along:
            self._weight_grad(core, unit.along)
            return
        count = size(result.spec.shape)
        shape = core.spec.shape if size(core.spec.shape) == count else (count,)
        if state is None:
            out = self.site.out(result.out, shape, result.spec.dtype)
        else:
            out = whole(shape, result.spec.dtype, self.site.plan.states[state])
            self.done.add(state)
        self._core(unit, core, out, finish)
        self._store(result.out, out)

    def _large(self, unit: Unit) -> bool:
        """Whether a kernel could not see all that the unit reads or makes: it is then planned op by op, each in parts."""
        seen = [self.site.views[r].buffer.nbytes for r in self.fused.flow.touched(unit) if r in self.site.views]
        return max([*seen, *(i.spec.nbytes for i in unit.instrs)]) > self.site.target.binding

    def _alone(self, i: Instr) -> None:
        for r in i.refs:
            s = self.fused.flow.source(r)
            if s in self.fused.flow.cheap and s not in self.site.views:
                self._alone(self.fused.flow.cheap[s])
        operands = [self._view(x) if isinstance(x, Ref) else x for x in i.operands]
        self.site.plan_op(i.op, operands, dict(i.attrs), self._result(i))

    def _weight_grad(self, core: Instr, sums: Instr) -> None:
        operands = [self.site.views[x] for x in core.refs]
        both = self._both(core, sums)
        out = self._result(core)
        if core.op == "conv2d_weight_grad":
            run_weight_grad(self.site, core.op, operands, dict(core.attrs), out, both)
        else:
            start = bias_place(out.shape)
            run_weight_grad3d(self.site, core.op, operands, dict(core.attrs), out, both, start)
        bias = self._result(sums)
        if both is None:
            run_reduce(self.site, "sum", operands[1], sums.attr("axes"), bias)

    def _core(self, unit: Unit, core: Instr, out: View, finish: Finish | None) -> None:
        site, attrs = self.site, dict(core.attrs)
        if core.op in REDUCING:
            start, axes = None, attrs["axes"]
            if unit.before is None:
                x = self.site.views[core.refs[0]]
            else:
                builder = _ChainBuilder(self, None)
                for m in unit.before.maps:
                    builder.add(m)
                last = self.fused.flow.source(core.refs[0])
                start = Finish(builder.chain([last]), tuple(builder.views))
                spec = self.specs[core.refs[0]]
                x = whole(spec.shape, spec.dtype, None)
            if out.size != size(core.spec.shape):  # each element folds all for itself
                x, axes = x.seen((out.size, *x.shape), (0, *x.strides)), tuple(a + 1 for a in axes)
            run_reduce(site, core.op, x, axes, out, start, finish)
            return
        operands = [site.views[x] if isinstance(x, Ref) else x for x in core.operands]
        if core.op == "matmul":
            run_matmul(site, operands[0], operands[1], out, finish, self._along(unit))  # pyright: ignore[reportArgumentType]
        elif core.op == "conv2d":
            run_conv2d(site, core.op, operands, attrs, out, finish)
        elif core.op == "conv2d_input_grad":
            run_input_grad(site, core.op, operands, attrs, out, finish)
        elif core.op == "conv3d":
            run_conv3d(site, core.op, operands, attrs, out, finish)
        elif core.op == "conv3d_input_grad":
            run_input_grad3d(site, core.op, operands, attrs, out, finish)
        elif core.op == "adaptive_avg_pool2d":
            run_pool(site, core.op, operands, attrs, out, finish)
        elif core.op in NORMS:
            run_norm(site, core.op, operands, attrs, out, finish)
        elif core.op in SOFTMAXES:
            run_rows(site, core.op, operands[0], attrs["axis"], out, finish)  # pyright: ignore[reportArgumentType]
        elif core.op == "cross_entropy_grad":
            g, logits, targets = operands
            run_loss(site, logits, targets, out, g, self._along(unit))  # pyright: ignore[reportArgumentType]
        else:
            site.plan_op(core.op, operands, attrs, out)

    def _along(self, unit: Unit) -> View | None:
        return None if unit.along is None else self._result(unit.along)

    def _result(self, i: Instr) -> View:
        out = self.site.out(i.out, i.spec.shape, i.spec.dtype)
        self._store(i.out, out)
        return out

    def _both(self, weight: Instr, bias: Instr) -> View | None:
        """Return memory in which a weight's gradient and its bias's lie one after the other; None if they must not."""
        count = bias_place(weight.spec.shape) + size(bias.spec.shape)
        width = weight.spec.dtype.nbytes
        if width != 4 or bias.spec.dtype != weight.spec.dtype:  # bias_place counts f32 from where a binding can start
            return None
        after = width * bias_place(weight.spec.shape)
        w, b = (self.site.homes.get(i.out) for i in (weight, bias))
        if w is None and b is None:
            home = Slot("temp", width * count)
            self.site.homes[weight.out] = Slot("temp", weight.spec.nbytes, home, 0)
            self.site.homes[bias.out] = Slot("temp", bias.spec.nbytes, home, after)
            return whole((count,), weight.spec.dtype, home)
        if w is not None and b is not None and w.parent is b.parent and b.offset == w.offset + after:
            return whole((count,), weight.spec.dtype, Slot("temp", width * count, w.parent, w.offset))
        return None

    # --- maps ------------------------------------------------------------------------------------------------------
    def _maps(self, unit: Unit, position: int) -> None:
        builder = _ChainBuilder(self, None)
        for m in unit.maps:
            builder.add(m)
        stored = self.fused.flow.stored(unit) or unit.maps[-1:]
        outs: list[View] = []
        inplace: list[int] = []
        for m in stored:
            state = self._replaceable(m.out, builder, position, inplace)
            if state is None:
                outs.append(self.site.out(m.out, m.spec.shape, m.spec.dtype))
                inplace.append(-1)
            else:
                leaf = builder.sources.index(state)
                outs.append(whole(m.spec.shape, m.spec.dtype, self.site.plan.states[state]))
                inplace.append(leaf)
                self.done.add(state)
            self._store(m.out, outs[-1])
        plan_fused_map(self.site, builder.chain([m.out for m in stored]), builder.views, outs, inplace)

    def _replaceable(self, ref: Ref, builder: _ChainBuilder, position: int, taken: list[int]) -> Ref | None:
        """Return the state whose memory may receive ``ref`` at once: read here element by element, and nowhere later."""
        for state, new in self.program.updates.items():
            if self.fused.flow.source(new) != ref or state == new or builder.sources.count(state) != 1:
                continue
            n = builder.sources.index(state)
            results = {self._root(r) for r in self.program.results()}
            if not builder.leaves[n].linear or builder.leaves[n].offset or n in taken or state in results:
                continue
            if sum(v.buffer is builder.views[n].buffer for v in builder.views) > 1:  # read through another view as well
                continue
            if not any(state in self.fused.flow.touched(u) for u in self.fused.units[position + 1 :]):
                return state
        return None

    def _root(self, ref: Ref) -> Ref:
        while ref in self.made and OPS[self.made[ref].op].category is Category.VIEW:
            ref = self.made[ref].refs[0]
        return ref

    # --- groups ----------------------------------------------------------------------------------------------------
    def _make_arenas(self, group: Group) -> list[Slot]:
        """Lay the group's tensors side by side, one arena per operand, alike in all of them."""
        apart = ALIGN // min(self.specs[column[0]].dtype.nbytes for column in group.leaves)  # elements
        places: list[int] = []
        count = 0
        for ref in group.leaves[0]:
            places.append(count)
            count += -(-size(self.specs[ref].shape) // apart) * apart
        arenas: list[Slot] = []
        for column in group.leaves:
            state = column[0] in self.program.updates
            width = self.specs[column[0]].dtype.nbytes
            offsets = [width * place for place in places]
            arena = Slot("arena" if state else "temp", width * count)
            for ref, offset in zip(column, offsets, strict=True):
                self.site.homes[ref] = Slot("state" if state else "temp", self.specs[ref].nbytes, arena, offset)
            if state:
                self.site.plan.arenas.append((arena, dict(zip(column, offsets, strict=True))))
            arenas.append(arena)
        return arenas

    def _group(self, group: Group, arenas: Sequence[Slot]) -> None:
        first = group.units[0]
        self._prepare([i for u in group.units for i in u.instrs], {i.out for u in group.units for i in u.instrs})
        self.site.doing = described([i for u in group.units for i in u.instrs])
        builder = _ChainBuilder(self, None)
        for m in first.maps:
            builder.add(m)
        columns = {column[0]: n for n, column in enumerate(group.leaves)}
        count = arenas[0].nbytes // self.specs[group.leaves[0][0]].dtype.nbytes
        views: list[View] = []
        leaves: list[Leaf] = []
        for leaf, view, source in zip(builder.leaves, builder.views, builder.sources, strict=True):
            if source in columns:
                view = whole((count,), view.dtype, arenas[columns[source]])
                leaf = Leaf(leaf.dtype, True, 0, (), ())
            views.append(view)
            leaves.append(leaf)
        firsts = [column[0] for column in group.outs]
        updated = {self.fused.flow.source(new): state for state, new in self.program.updates.items()}
        inplace = [builder.sources.index(updated[r]) for r in firsts]
        outs = [views[n] for n in inplace]
        chain = builder.chain(firsts)
        plan_fused_map(self.site, Chain(tuple(leaves), chain.links, chain.outs), views, outs, inplace)
        for column in group.outs:
            for ref in column:
                self.done.add(updated[ref])
                self._store(
                    ref, whole(self.specs[ref].shape, self.specs[ref].dtype, self.site.plan.states[updated[ref]])
                )


def _operand_types(i: Instr, specs: dict[Ref, Spec]) -> list[DType]:
    """Return each operand's element type; numbers take that of the tensors beside them."""
    if i.op in ("uniform", "normal", "arange"):
        return [DTYPES["i32"]] * len(i.operands)
    beside = [specs[x].dtype for x in (i.operands[1:] if i.op == "where" else i.operands) if isinstance(x, Ref)]
    other = beside[0] if beside else i.spec.dtype
    return [specs[x].dtype if isinstance(x, Ref) else other for x in i.operands]
