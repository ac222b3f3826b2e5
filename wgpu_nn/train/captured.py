"""CapturedStep: one signature of a captured function, from its trace to its calls; whose memory is whose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.dtype import Scalar
from wgpu_nn.gpu import Buffer, Segment
from wgpu_nn.graph import Program, Ref, Trace
from wgpu_nn.graph.check import reference, verify
from wgpu_nn.graph.emit import plan_fused
from wgpu_nn.graph.plan import plan_plainly
from wgpu_nn.graph.step import Step
from wgpu_nn.kernels import View, contiguous, copy
from wgpu_nn.kernels.plan import BINDING, Slot, layout
from wgpu_nn.shape import row_major
from wgpu_nn.tensor import Cell, Device, Tensor


def _bindable(nbytes: int) -> int:
    """Return the size of a binding for ``nbytes``: kernels that take four elements at once may reach beyond the last."""
    return max(-(-nbytes // 16) * 16, 16)


def _kept(root: Wgpu, buffer: Buffer) -> Buffer:
    """Return a buffer that stays where it is: a lease on a cell's memory would move when a step writes to that."""
    if not buffer.lent:
        return buffer
    fresh = root.gpu.pool.lease(buffer.block.size)
    root.gpu.stream.copy(Segment(buffer, 0, buffer.block.size), Segment(fresh, 0, buffer.block.size))
    return fresh


class CapturedStep:
    """One signature of a captured function: its program, and the step that replays it.

    State that the program replaces lives in memory of the step's, or of another step's that came first; cells keep
    a tensor of that memory. State that is only read stays where it is.
    """

    def __init__(
        self,
        root: Wgpu,
        trace: Trace,
        program: Program,
        result: Any,
        devices: list[Device],
        sent: list[np.ndarray],
        fuse: bool,
        together: int,
    ) -> None:
        """Plan what was traced. The trace asks ``sent`` for the arrays of each call."""
        self.program, self.result, self.devices, self._sent = program, result, devices, sent
        self._root = root
        self._constants: dict[Ref, View] = dict(trace.constants)
        self._callbacks = [callback for callback, _ in trace.hosts]
        self._first: list[Any] | None = trace.first
        self._cells: dict[Ref, Cell] = {ref: cell for ref, cell in trace.states.items()}
        if fuse:
            self.plan = plan_fused(program, trace.constants, root.target, root.tuner)
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
        self.step = Step(root.gpu, self.plan, places, [specs[r] for r in self.plan.host_refs], together)
        self._homes = {ref: places[self.plan.states[ref]] for ref in self._cells}
        self._seen = {ref: cell.tensor for ref, cell in self._cells.items()}
        self._watch()

    def _place_of(self, ref: Ref) -> Segment:
        """Return where a cell's tensor lies; one that cannot be bound as it is becomes a copy that can."""
        cell = self._cells[ref]
        view: View = cell.tensor.root
        if not view.contiguous or view.start % BINDING or (view.buffer.lent and not cell.owned):
            view = copy(self._root, view)
        return Segment(view.buffer, view.start, _bindable(view.nbytes))

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
        if self._root.gpu.sanitizer is not None:
            self._root.gpu.sanitizer.clear(buffer)
        for ref, offset in offsets.items():
            inner = self.plan.states[ref]
            places[inner] = self._move(ref, places[inner], buffer, offset)
        return Segment(buffer, 0, slot.nbytes)

    def _move(self, ref: Ref, source: Segment, buffer: Buffer, offset: int) -> Segment:
        """Copy a cell's elements to other memory, and let the cell live there."""
        place = Segment(buffer, offset, self.plan.states[ref].nbytes)
        if place.nbytes:
            self._root.gpu.stream.copy(source, place)
        self._settle_in(ref, place)
        return Segment(buffer, offset, _bindable(place.nbytes))

    def _settle_in(self, ref: Ref, place: Segment) -> None:
        cell = self._cells[ref]
        spec = cell.tensor
        start = place.offset // spec.dtype.nbytes
        view = View(place.buffer, layout(spec.shape, row_major(spec.shape), start, spec.dtype))
        cell.bind(Tensor.of_root(cell.device, view))

    def _follow(self) -> None:
        """Take up what happened to state between calls: cells with other tensors, and tensors read from cells."""
        if Cell.touched == self._touched:
            return
        self._touched = Cell.touched
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
                            self._root.gpu.stream.copy(place, home)
                        self._settle_in(ref, home)
                else:
                    self.step.rebind(ref, place)
                    self._homes[ref] = place
                self._seen[ref] = cell.tensor
        self._watch()

    def _watch(self) -> None:
        """Remember what each call must look at: states as they were left, and written ones with their memory."""
        self._touched = -1
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
                    self._root.gpu.stream.copy(whole, Segment(fresh, 0, block.size))
                loan.move(moved[block.id])

    def __call__(
        self, args: Sequence[Tensor], arrays: Sequence[np.ndarray], name: str = "", check: bool = False
    ) -> list[Tensor]:
        self._follow()
        self._sent[:] = arrays
        if self._first is None:
            numbers = [x for callback in self._callbacks for x in callback()]
        else:
            numbers, self._first = self._first, None
        views = [contiguous(self._root, t.root) for t in args]
        found = self._checked(views, numbers, name) if check else self.step.run(views, numbers)
        return [Tensor.of_root(d, v) for d, v in zip(self.devices, found, strict=True)]

    def _checked(self, args: list[View], numbers: list[Any], name: str) -> list[View]:
        """Replay, and compare the results and the new state with those of the same ops launched one by one."""
        root, program = self._root, self.program
        inputs: dict[Ref, View | Scalar] = dict(zip(self.plan.args, args, strict=True))
        specs = program.specs()
        for ref, x in zip(self.plan.host_refs, numbers, strict=True):
            inputs[ref] = root.upload(x, specs[ref].dtype) if isinstance(x, np.ndarray) else x
        inputs |= {ref: copy(root, cell.tensor.root) for ref, cell in self._cells.items()}
        inputs |= self._constants
        expected = reference(root, program, inputs)
        found = self.step.run(args, numbers)
        results = list(zip(program.outputs, found, strict=True))
        results += [(program.updates[ref], self._cells[ref].tensor.root) for ref in self.plan.written]
        verify(root, name, program, inputs, expected, results)
        return found
