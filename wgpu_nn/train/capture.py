"""@capture: a function of tensors, traced once per input signature and replayed with one submit."""

from __future__ import annotations

import functools
import logging
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, cast, overload

from wgpu_nn import switches
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.dtype import Scalar
from wgpu_nn.errors import CaptureError
from wgpu_nn.gpu import Buffer, Segment
from wgpu_nn.graph import Program, Ref, Trace, simplify
from wgpu_nn.graph.check import reference, verify
from wgpu_nn.graph.emit import plan_fused
from wgpu_nn.graph.plan import Slot, plan_plainly
from wgpu_nn.graph.step import Step
from wgpu_nn.kernels import View, contiguous, copy
from wgpu_nn.kernels.plan import ALIGNED
from wgpu_nn.nn import Module
from wgpu_nn.optim import Optimizer
from wgpu_nn.shape import row_major
from wgpu_nn.tensor import Cell, Device, Rng, Tensor

P = ParamSpec("P")
R = TypeVar("R")

State = Module | Optimizer | Cell | Device | Rng


log = logging.getLogger("wgpu_nn.capture")


def cells_of(state: Sequence[State]) -> list[Cell]:
    """Return the cells of named state. A Device and an Rng have none: their counters are host numbers."""
    found: list[Cell] = []
    for s in state:
        if isinstance(s, Module):
            found += s.params()
        elif isinstance(s, Optimizer):
            found += s.cells()
        elif isinstance(s, Cell):
            found.append(s)
    return found


def _flatten(value: Any, tensors: list[Tensor]) -> Hashable:
    """Append the tensors in ``value`` to ``tensors``, and return its structure with their places."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return ("tensor", value.shape, value.dtype.name, id(value.device.backend), len(tensors) - 1)
    if isinstance(value, list | tuple):
        return (type(value), *(_flatten(v, tensors) for v in cast(Sequence[Any], value)))
    if isinstance(value, dict):
        return ("dict", *((k, _flatten(v, tensors)) for k, v in cast(dict[str, Any], value).items()))
    try:
        hash(value)
    except TypeError:
        raise CaptureError(
            f"capture: expected tensors and hashable values as arguments, got {type(value).__name__}"
        ) from None
    # 1, 1.0 and True are equal in Python, as are 0.0 and -0.0; here they are not.
    return ("value", type(value), repr(value) if isinstance(value, float) else value)


def _rebuilt(value: Any, tensors: Sequence[Tensor], count: list[int]) -> Any:
    """Return ``value`` with its tensors replaced, in order."""
    if isinstance(value, Tensor):
        count[0] += 1
        return tensors[count[0] - 1]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_rebuilt(v, tensors, count) for v in cast(tuple[Any, ...], value)))
    if isinstance(value, list | tuple):
        return type(value)(_rebuilt(v, tensors, count) for v in cast(Sequence[Any], value))
    if isinstance(value, dict):
        return {k: _rebuilt(v, tensors, count) for k, v in cast(dict[str, Any], value).items()}
    return value


def _bindable(nbytes: int) -> int:
    """Return the size of a binding for ``nbytes``: kernels that take four elements at once may reach beyond the last."""
    return max(-(-nbytes // 16) * 16, 16)


def _kept(root: Wgpu, buffer: Buffer) -> Buffer:
    """Return a buffer that stays where it is: a lease on a cell's memory would move when a step writes to that."""
    if not buffer.lent:
        return buffer
    fresh = root.gpu.pool.lease(buffer.block.size)
    root.gpu.stream.replay(
        [], [(Segment(buffer, 0, buffer.block.size), Segment(fresh, 0, buffer.block.size))], [], None
    )
    return fresh


class CapturedStep:
    """One signature of a captured function: its program, and the step that replays it.

    State that the program replaces lives in memory of the step's, or of another step's that came first; cells keep
    a tensor of that memory. State that is only read stays where it is.
    """

    def __init__(
        self, root: Wgpu, trace: Trace, program: Program, result: Any, devices: list[Device], fuse: bool
    ) -> None:
        self.program, self.result, self.devices = program, result, devices
        self._root = root
        self._constants: dict[Ref, View] = dict(trace.constants)
        self._callbacks = [callback for callback, _ in trace.hosts]
        self._first: list[Scalar] | None = trace.first
        self._cells: dict[Ref, Cell] = {ref: cell for ref, cell in trace.states.items()}
        if fuse:
            self.plan = plan_fused(program, trace.constants, root.target)
        else:
            self.plan = plan_plainly(program, trace.constants, root.target, root.tuned)
        places: dict[Slot, Segment] = {}
        for ref, slot in self.plan.consts.items():
            buffer = _kept(root, trace.constants[ref].buffer)
            places[slot] = Segment(buffer, 0, buffer.block.size)
        for ref, slot in self.plan.states.items():
            places[slot] = self._place_of(ref)
        for slot, offsets in self.plan.arenas:
            places[slot] = self._arena(slot, offsets, places)
        grouped = {ref for _, offsets in self.plan.arenas for ref in offsets}
        blocks = [places[slot].buffer.block for slot in self.plan.states.values()]
        for ref in self.plan.written - grouped:
            slot = self.plan.states[ref]
            # One launch cannot write to a buffer that it also reads other state from.
            if not self._cells[ref].owned or blocks.count(places[slot].buffer.block) > 1:
                places[slot] = self._move(ref, places[slot], root.gpu.pool.lease(slot.nbytes), 0)
        specs = program.specs()
        self.step = Step(root.gpu, self.plan, places, [specs[r].dtype for r in self.plan.host_refs])
        self._homes = {ref: places[self.plan.states[ref]] for ref in self._cells}
        self._seen = {ref: cell.tensor for ref, cell in self._cells.items()}
        self._watch()

    def _place_of(self, ref: Ref) -> Segment:
        """Return where a cell's tensor lies; one that cannot be bound as it is becomes a copy that can."""
        cell = self._cells[ref]
        view: View = cell.tensor.root
        if not view.contiguous or view.offset % ALIGNED or (view.buffer.lent and not cell.owned):
            view = copy(self._root, view)
        return Segment(view.buffer, 4 * view.offset, _bindable(4 * view.size))

    def _arena(self, slot: Slot, offsets: dict[Ref, int], places: dict[Slot, Segment]) -> Segment:
        """Return memory in which states lie side by side: where they lie so already, or new one that they move to."""
        first = next(iter(offsets))
        home = places[self.plan.states[first]]
        start = home.offset - offsets[first]
        together = all(
            self._cells[r].owned
            and places[self.plan.states[r]].buffer.block is home.buffer.block
            and places[self.plan.states[r]].offset == start + o
            for r, o in offsets.items()
        )
        if together and start == 0 and home.buffer.nbytes == slot.nbytes:
            return Segment(home.buffer, 0, slot.nbytes)
        buffer = self._root.gpu.pool.lease(slot.nbytes)
        for ref, offset in offsets.items():
            inner = self.plan.states[ref]
            places[inner] = self._move(ref, places[inner], buffer, offset)
        return Segment(buffer, 0, slot.nbytes)

    def _move(self, ref: Ref, source: Segment, buffer: Buffer, offset: int) -> Segment:
        """Copy a cell's elements to other memory, and let the cell live there."""
        place = Segment(buffer, offset, self.plan.states[ref].nbytes)
        if place.nbytes:
            self._root.gpu.stream.replay([], [(source, place)], [], None)
        self._settle_in(ref, place)
        return Segment(buffer, offset, _bindable(place.nbytes))

    def _settle_in(self, ref: Ref, place: Segment) -> None:
        cell = self._cells[ref]
        spec = cell.tensor
        view = View(place.buffer, spec.shape, row_major(spec.shape), place.offset // 4, spec.dtype)
        cell.bind(Tensor.of_root(cell.device, view))

    def _follow(self) -> None:
        """Take up what happened to state between calls: cells with other tensors, and tensors read from cells."""
        self._give_way()
        if all(cell.tensor is seen for cell, seen in self._watched):
            return
        for ref, cell in self._cells.items():
            if cell.tensor is not self._seen[ref]:
                place = self._place_of(ref)
                home = self._homes[ref]
                if ref in self.plan.written:
                    if not cell.owned or place.buffer.block is not home.buffer.block or place.offset != home.offset:
                        if home.nbytes:
                            self._root.gpu.stream.replay([], [(place, home)], [], None)
                        self._settle_in(ref, home)
                else:
                    self.step.rebind(ref, place)
                    self._homes[ref] = place
                self._seen[ref] = cell.tensor
        self._watch()

    def _watch(self) -> None:
        """Remember what each call must look at: states as they were left, and written ones with their memory."""
        self._watched = [(cell, self._seen[ref]) for ref, cell in self._cells.items()]
        self._writes = [(self._cells[ref], self._homes[ref].buffer.block) for ref in self.plan.written]

    def _give_way(self) -> None:
        """Copy the memory that this step is about to write to, for those outside who still read from it."""
        moved: dict[int, Buffer] = {}
        for cell, block in self._writes:
            if not cell.lent:
                continue
            for loan in cell.loans(block):
                if block.id not in moved:
                    moved[block.id] = fresh = self._root.gpu.pool.lease(block.size)
                    whole = Segment(loan, 0, block.size)
                    self._root.gpu.stream.replay([], [(whole, Segment(fresh, 0, block.size))], [], None)
                loan.move(moved[block.id])

    def __call__(self, args: list[Tensor], name: str = "", check: bool = False) -> list[Tensor]:
        self._follow()
        if self._first is None:
            numbers = [x for callback in self._callbacks for x in callback()]
        else:
            numbers, self._first = self._first, None
        views = [contiguous(self._root, t.root) for t in args]
        found = self._checked(views, numbers, name) if check else self.step.run(views, numbers)
        return [Tensor.of_root(d, v) for d, v in zip(self.devices, found, strict=True)]

    def _checked(self, args: list[View], numbers: list[Scalar], name: str) -> list[View]:
        """Replay, and compare the results and the new state with those of the same ops launched one by one."""
        root, program = self._root, self.program
        inputs: dict[Ref, View | Scalar] = dict(zip(self.plan.args, args, strict=True))
        inputs |= dict(zip(self.plan.host_refs, numbers, strict=True))
        inputs |= {ref: copy(root, cell.tensor.root) for ref, cell in self._cells.items()}
        inputs |= self._constants
        expected = reference(root, program, inputs)
        found = self.step.run(args, numbers)
        results = list(zip(program.outputs, found, strict=True))
        results += [(program.updates[ref], self._cells[ref].tensor.root) for ref in self.plan.written]
        verify(root, name, program, inputs, expected, results)
        return found


class Captured(Generic[P, R]):
    """A captured function; see ``capture``."""

    def __init__(self, fn: Callable[P, R], state: Sequence[State], fuse: bool | None, check: bool, most: int) -> None:
        functools.update_wrapper(self, fn)
        self._check = check
        self._name: str = getattr(fn, "__qualname__", type(fn).__name__)
        self._fn, self._state, self._fuse, self._most = fn, tuple(state), fuse, most
        self._baked: dict[str, tuple[Any, Any]] = {}
        self._steps: OrderedDict[Hashable, CapturedStep] = OrderedDict()
        self._lock = threading.RLock()

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., R]:
        """Let a captured function be a method; its module is then part of the signature, by identity."""
        return self if instance is None else functools.partial(cast(Any, self), instance)

    @property
    def steps(self) -> list[CapturedStep]:
        """The signatures captured so far, the one used last at the end."""
        return list(self._steps.values())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        tensors: list[Tensor] = []
        shape = _flatten((args, kwargs), tensors)
        root = self._root(tensors)
        if root is None or not switches.capture or root.recorder is not None:
            return self._fn(*args, **kwargs)
        fuse = bool(switches.fusion) if self._fuse is None else self._fuse
        key = (shape, id(root), bool(switches.checked_shaders), fuse)
        with self._lock:
            step = self._steps.get(key)
            if step is None:
                step = self._capture(root, args, kwargs, tensors, fuse)
                self._steps[key] = step
                if len(self._steps) > self._most:
                    self._steps.popitem(last=False)
                    log.warning(
                        "capture %s: more than %d signatures; the oldest step is dropped, and will be captured again if it "
                        "returns. Fewer shapes, or a larger capture(most=...), avoid that",
                        self._name,
                        self._most,
                    )
            else:
                self._steps.move_to_end(key)
                self._warn_of_baked()
            results = step(tensors, self._name, self._check)
        return cast(R, _rebuilt(step.result, results, [0]))

    def _bake(self) -> None:
        """Note the Python numbers of the function's closure: a trace takes them as they are now."""
        code, closure = getattr(self._fn, "__code__", None), getattr(self._fn, "__closure__", None)
        names = code.co_freevars if code is not None else ()
        for name, cell in zip(names, closure or (), strict=False):
            try:
                value = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            if isinstance(value, bool | int | float):
                self._baked[name] = (cell, value)

    def _warn_of_baked(self) -> None:
        for name, (cell, value) in self._baked.items():
            if cell.cell_contents is not value and cell.cell_contents != value:
                warnings.warn(
                    f"capture {self._name}: {name} was {value!r} when the function was captured, and its steps keep that; "
                    f"it is {cell.cell_contents!r} now. Pass it as an argument, or keep it in a Cell",
                    stacklevel=3,
                )
                self._baked[name] = (cell, cell.cell_contents)

    def _root(self, tensors: Sequence[Tensor]) -> Wgpu | None:
        roots = {id(r): r for r in (t.device.root for t in tensors)}
        if not roots:
            devices = [c.device for c in cells_of(self._state)]
            devices += [s for s in self._state if isinstance(s, Device)]
            roots = {id(d.root): d.root for d in devices}
        gpus = [r for r in roots.values() if isinstance(r, Wgpu)]
        if len(gpus) > 1:
            raise CaptureError(f"capture {self._name}: expected tensors of one GPU, got {len(gpus)}; move them to one")
        return gpus[0] if gpus and len(roots) == 1 else None

    def _capture(self, root: Wgpu, args: Any, kwargs: Any, tensors: list[Tensor], fuse: bool) -> CapturedStep:
        if self._steps:
            log.info("capture %s: new signature %s", self._name, [list(t.shape) for t in tensors])
        self._bake()
        trace = Trace(root.dtypes, root.spec)
        optimizers = [s for s in self._state if isinstance(s, Optimizer)]
        before = [(o, o.steps) for o in optimizers]
        devices = [*(t.device for t in tensors), *(c.device for c in cells_of(self._state))]
        devices += [s for s in self._state if isinstance(s, Device)]
        rngs = {id(r): r for r in (*(d.rng for d in devices), *(s for s in self._state if isinstance(s, Rng)))}
        streams = [(r, r.stream) for r in rngs.values()]
        try:
            inputs = [Tensor.of_root(t.device, trace.input("arg", root.spec(t.root))) for t in tensors]
            given_args, given_kwargs = _rebuilt((args, kwargs), inputs, [0])
            with root.recording(trace):
                result = cast(Any, self._fn)(*given_args, **given_kwargs)
            outputs: list[Tensor] = []
            _flatten(result, outputs)
            updates = {ref: trace.cells[cell].root for ref, cell in trace.states.items()}
            program = simplify(trace.program([t.root for t in outputs], updates))
            self._check_named(trace, program)
            return CapturedStep(root, trace, program, result, [t.device for t in outputs], fuse)
        except BaseException:
            trace.open = False
            for o, steps in before:
                o.steps = steps
            for r, stream in streams:
                r.stream = stream
            raise

    def _check_named(self, trace: Trace, program: Program) -> None:
        named = {id(c) for c in cells_of(self._state)}
        for ref, new in program.updates.items():
            cell = trace.states[ref]
            if new != ref and id(cell) not in named:
                raise CaptureError(
                    f"capture {self._name}: replaces a {type(cell).__name__} of shape {list(cell.shape)} that is not in "
                    "state; name what holds it: capture(state=[model, optim])"
                )


@overload
def capture(fn: Callable[P, R], /) -> Captured[P, R]: ...
@overload
def capture(
    *, state: Sequence[State] = (), fuse: bool | None = None, check: bool = False, most: int = 8
) -> Callable[[Callable[P, R]], Captured[P, R]]: ...
def capture(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    state: Sequence[State] = (),
    fuse: bool | None = None,
    check: bool = False,
    most: int = 8,
) -> Any:
    """Trace a function of tensors once per signature of its arguments, and replay it with one submit.

    ``state`` names the modules, optimizers and cells whose tensors the function replaces. What it reads besides is
    baked: Python numbers of its closure keep the value that they had when it was traced. Learning rates, step counts
    and random streams are not baked. On NumPy, and with ``switches.capture`` off, the function runs as it is.

    ``fuse`` decides about fusion (by default ``switches.fusion``); without, results equal eager mode's bit for bit.
    ``check`` also launches the ops one by one at every call, slowly, and raises CaptureError naming the first op that
    differs. ``most`` bounds the number of signatures kept.
    """
    if fn is not None:
        return Captured(fn, state, fuse, check, most)
    return lambda f: Captured(f, state, fuse, check, most)
