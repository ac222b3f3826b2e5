"""Step: a plan bound to a device, replayed with one submit; owns its memory, knows no tensors."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from wgpu_nn.dtype import DType, Scalar
from wgpu_nn.gpu import Bound, Buffer, Gpu, Segment
from wgpu_nn.gpu.pool import size_class
from wgpu_nn.graph.plan import Dispatch, Plan, Slot
from wgpu_nn.graph.program import Ref
from wgpu_nn.kernels import View
from wgpu_nn.kernels.plan import bits


class Step:
    """Launches bound once and replayed.

    ``places`` gives the memory of states, constants and state arenas; ``rebind`` moves a state.
    """

    def __init__(self, gpu: Gpu, plan: Plan, places: Mapping[Slot, Segment], hosts: Sequence[DType]) -> None:
        self._gpu, self._plan, self._host_types = gpu, plan, tuple(hosts)
        self._places = dict(places)
        self._held: list[Buffer] = []
        for slot in [*plan.args.values(), *([plan.hosts] if plan.hosts else [])]:
            self._places[slot] = self._lease(slot.nbytes)
        self._place_temporaries()
        self._launches = [self._bound(d) for d in plan.dispatches]

    def _bound(self, d: Dispatch) -> Bound:
        return self._gpu.stream.bind(d.kernel, [self._places[s] for s in d.slots], d.grid)

    def _lease(self, nbytes: int) -> Segment:
        buffer = self._gpu.pool.lease(nbytes)
        self._held.append(buffer)
        return Segment(buffer, 0, buffer.block.size)

    def _place_temporaries(self) -> None:
        """Give temporaries memory by liveness: a slot is free again after the last launch that uses it.

        One that lies in another lives as long as that does.
        """
        plan = self._plan
        last: dict[Slot, int] = {}
        for n, d in enumerate(plan.dispatches):
            for s in d.slots:
                last[s.parent or s] = n
        for view in [*plan.outputs, *(v for v, _ in plan.copies)]:
            last[view.buffer.parent or view.buffer] = len(plan.dispatches)
        free: dict[int, list[Segment]] = {}
        for n, d in enumerate(plan.dispatches):
            for s in dict.fromkeys(d.slots):
                self._place(s, free)
            for s in dict.fromkeys(s.parent or s for s in d.slots):
                if s.role == "temp" and last[s] == n:
                    free.setdefault(size_class(s.nbytes), []).append(self._places[s])
        for view in plan.outputs:
            self._place(view.buffer, {})

    def _place(self, slot: Slot, free: dict[int, list[Segment]]) -> None:
        if slot in self._places:
            return
        if slot.parent is not None:
            self._place(slot.parent, free)
            home = self._places[slot.parent]
            nbytes = max(-(-slot.nbytes // 16) * 16, 16)  # kernels may take four elements at once
            self._places[slot] = Segment(home.buffer, home.offset + slot.offset, nbytes)
            return
        waiting = free.get(size_class(slot.nbytes))
        self._places[slot] = waiting.pop() if waiting else self._lease(slot.nbytes)

    @property
    def launches(self) -> int:
        """The number of launches of one replay."""
        return len(self._launches)

    def profile(self) -> list[tuple[str, float]]:
        """Run the launches once more and return each one's kernel and GPU time in seconds; state changes as by a call."""
        times = self._gpu.stream.timed(self._launches)
        return [(d.kernel.name, t) for d, t in zip(self._plan.dispatches, times, strict=True)]

    def rebind(self, ref: Ref, place: Segment) -> None:
        """Let a state that is only read live elsewhere from now on."""
        slot = self._plan.states[ref]
        self._places[slot] = place
        for n, d in enumerate(self._plan.dispatches):
            if slot in d.slots:
                self._launches[n] = self._bound(d)

    def run(self, args: Sequence[View], numbers: Sequence[Scalar]) -> list[View]:
        """Replay: copy the arguments in, launch, update state, and return copies of the results."""
        plan, pool = self._plan, self._gpu.pool
        before = [
            (Segment(v.buffer, 4 * v.offset, s.nbytes), self._places[s])
            for v, s in zip(args, plan.args.values(), strict=True)
            if s.nbytes
        ]
        after: list[tuple[Segment, Segment]] = []
        results: list[View] = []
        for v in plan.outputs:  # before state is replaced, as a result may be the old one
            buffer = pool.lease(4 * v.size)
            results.append(View(buffer, v.shape, v.strides, 0, v.dtype))
            if v.size:
                after.append((self._segment(v), Segment(buffer, 0, 4 * v.size)))
        after += [(self._segment(v), self._places[s]) for v, s in plan.copies if s.nbytes]
        upload = None
        if plan.hosts is not None:
            words = [bits(x, t) for x, t in zip(numbers, self._host_types, strict=True)]
            upload = (self._places[plan.hosts], struct.pack(f"<{len(words)}I", *words))
        self._gpu.stream.replay(self._launches, before, after, upload)
        return results

    def _segment(self, view: View) -> Segment:
        place = self._places[view.buffer]
        return Segment(place.buffer, place.offset + 4 * view.offset, 4 * view.size)
