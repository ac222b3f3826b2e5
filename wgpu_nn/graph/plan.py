"""From a program to launches: runs the planners of eager mode against slots instead of buffers. Pure data, no device."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from wgpu_nn.backends.recipe import execute
from wgpu_nn.dtype import DType
from wgpu_nn.gpu import Kernel
from wgpu_nn.graph.program import Instr, Program, Ref
from wgpu_nn.kernels import Grid, Target, Template, View, Words, contiguous, copy, plan_op, whole
from wgpu_nn.kernels.plan import Candidate, Slot, Task, layout
from wgpu_nn.kernels.storage import stored
from wgpu_nn.ops import Spec
from wgpu_nn.shape import Shape, row_major, size


@dataclass(frozen=True, slots=True, eq=False)
class Dispatch:
    """One launch: a kernel whose sizes are constants, the slots that it binds in order, its workgroups, and for what.

    One that runs ``beside`` those before it needs no barrier, if its temporaries get memory that the step used for nothing
    else before.
    """

    kernel: Kernel
    slots: tuple[Slot, ...]
    grid: Grid
    doing: str = ""
    beside: bool = False


@dataclass(slots=True)
class Plan:
    """A program's launches. Updates that no launch makes in place are copies after the last one."""

    dispatches: list[Dispatch] = field(default_factory=list[Dispatch])
    args: dict[Ref, Slot] = field(default_factory=dict[Ref, Slot])
    states: dict[Ref, Slot] = field(default_factory=dict[Ref, Slot])
    consts: dict[Ref, Slot] = field(default_factory=dict[Ref, Slot])
    hosts: Slot | None = None
    host_refs: list[Ref] = field(default_factory=list[Ref])
    outputs: list[View] = field(default_factory=list[View])
    copies: list[tuple[View, Slot]] = field(default_factory=list[tuple[View, Slot]])
    written: set[Ref] = field(default_factory=set[Ref])  # states that change
    arenas: list[tuple[Slot, dict[Ref, int]]] = field(
        default_factory=list[tuple[Slot, dict[Ref, int]]]
    )  # states side by side

    def __str__(self) -> str:
        names: dict[Slot, str] = {}
        lines: list[str] = []
        for d in self.dispatches:
            for s in d.slots:
                names.setdefault(s, f"{s.role}{len(names)}[{s.nbytes}]")
            lines.append(f"{d.kernel.name} {d.grid} {' '.join(names[s] for s in d.slots)}")
        return "\n".join(lines)


class Chooser(Protocol):
    """What knows better than the rules which candidate to take."""

    def choose(self, task: Task, candidates: Sequence[Candidate]) -> int: ...


class StaticSite:
    """The site of planners whose launches are recorded in a plan. Rules choose variants, unless there is a chooser."""

    def __init__(self, target: Target, tuned: bool, chooser: Chooser | None = None) -> None:
        self.target, self.tuned, self._chooser = target, tuned, chooser
        self.homes: dict[Ref, Slot] = {}  # where a value must lie
        self.plan = Plan()
        self.doing = ""  # what is planned now, for whoever reports on its launches
        self.views: dict[Ref, View] = {}

    def empty(self, shape: Shape, dtype: DType) -> View:
        return whole(shape, dtype, Slot("temp", Spec(shape, dtype).nbytes))

    def launch(self, template: Template, key: Hashable, words: Words, views: Sequence[View], grid: Grid) -> None:
        if 0 not in grid:
            kernel = stored(template(key, words), views, self.target.halves)
            self.plan.dispatches.append(Dispatch(kernel, tuple(v.buffer for v in views), grid, self.doing))

    def choose(self, task: Task, candidates: Sequence[Candidate]) -> int:
        return 0 if self._chooser is None else self._chooser.choose(task, candidates)

    def run(self, i: Instr) -> None:
        """Plan one instruction by itself."""
        self.doing = described([i])
        operands = [self.views[x] if isinstance(x, Ref) else x for x in i.operands]
        self.views[i.out] = execute(self, i.op, operands, dict(i.attrs), i.spec)

    def plan_op(self, op: str, operands: Sequence[Any], attrs: Mapping[str, Any], out: View) -> None:
        """Plan one routine into ``out``."""
        plan_op(self, op, operands, attrs, out)

    def begin(self, program: Program, constants: dict[Ref, View]) -> None:
        """Give the program's inputs their slots."""
        hosts = [i for i in program.inputs if i.role == "host"]
        if hosts:
            self.plan.hosts = Slot("host", 4 * sum(size(i.spec.shape) for i in hosts))
        words = 0
        for i in program.inputs:
            if i.role == "host":
                view = View(self.plan.hosts, layout(i.spec.shape, row_major(i.spec.shape), words, i.spec.dtype))
                words += size(i.spec.shape)
                self.plan.host_refs.append(i.ref)
            elif i.role == "const":
                given = constants[i.ref]
                slot = Slot("const", given.buffer.nbytes)
                self.plan.consts[i.ref] = slot
                view = View(slot, given.layout)
            else:
                slot = self.homes.get(i.ref) or Slot(i.role, i.spec.nbytes)
                view = whole(i.spec.shape, i.spec.dtype, slot)
                (self.plan.args if i.role == "arg" else self.plan.states)[i.ref] = view.buffer
            self.views[i.ref] = view

    def end(self, program: Program, done: set[Ref]) -> Plan:
        """Say where results lie; ``done`` are the states that a launch has replaced in place."""
        for r in program.outputs:
            self.plan.outputs.append(self._plain(self.views[r]))
        for state, new in program.updates.items():
            if new == state:
                continue
            self.plan.written.add(state)
            if state not in done:
                view = self._plain(self.views[new])
                if view.buffer.role == "state":  # which may itself be replaced before this copy is made
                    view = copy(self, view)
                self.plan.copies.append((view, self.plan.states[state]))
        return self.plan

    def _plain(self, view: View) -> View:
        return contiguous(self, view)

    def out(self, ref: Ref, shape: Shape, dtype: DType) -> View:
        """Return where a result goes."""
        home = self.homes.get(ref)
        return self.empty(shape, dtype) if home is None else whole(shape, dtype, home)


def described(instrs: Sequence[Instr]) -> str:
    """Return the ops of a launch, the shape of the last, and the line that asked for it."""
    last, ops = instrs[-1], list(dict.fromkeys(i.op for i in instrs))
    return f"{' and '.join(ops)} -> {last.spec}{f', at {last.where}' if last.where else ''}"


def plan_plainly(program: Program, constants: dict[Ref, View], target: Target, tuned: bool = False) -> Plan:
    """Plan op by op, as eager mode runs: what fusion is compared with. Equal variants (``tuned``) give equal bits."""
    site = StaticSite(target, tuned)
    site.begin(program, constants)
    for i in program.instrs:
        site.run(i)
    return site.end(program, set())
