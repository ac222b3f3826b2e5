"""Step: a plan bound to a device, replayed as it stands; owns its memory, knows no tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from wgpu_nn.errors import CaptureError
from wgpu_nn.gpu import Bound, Buffer, Gpu, Replay, Segment, Transfer, transfer
from wgpu_nn.graph.plan import Dispatch, Plan
from wgpu_nn.graph.program import Ref
from wgpu_nn.kernels import View
from wgpu_nn.kernels.plan import BINDING, Packing, Slot, layout
from wgpu_nn.ops import Spec

MOST_VARIANTS = 64  # bindings kept for the buffers that calls bring and take; steady loops have a few
SMALL = 1 << 16  # bytes of a slice that are copied rather than bound: a loop that walks along a tensor binds but once


class Step:
    """Launches bound once and replayed.

    ``places`` gives the memory of states, constants and state arenas; ``rebind`` moves a state. ``together`` runs share
    a submit: so many sets of host numbers are kept, as each is written when its run is recorded.
    """

    def __init__(
        self, gpu: Gpu, plan: Plan, places: Mapping[Slot, Segment], hosts: Sequence[Spec], together: int = 1
    ) -> None:
        self._gpu, self._plan, self._pack = gpu, plan, Packing(hosts)
        self._stream = gpu.stream  # a launch that is bound on one device runs on no other
        self._places = dict(places)
        self._stream.check(*(p.buffer for p in places.values()))
        self._held: list[Buffer] = []
        self._together, self._runs = together, 0
        self._numbers: list[Segment] = []  # where the host numbers of each of these runs lie
        if plan.hosts:
            stride = -(-plan.hosts.nbytes // BINDING) * BINDING
            buffer = self._lease(stride * together).buffer
            gpu.stream.flush()  # what is recorded may still use that block, and host numbers overtake it
            self._numbers = [Segment(buffer, stride * k, stride) for k in range(together)]
        gpu.compile(d.kernel for d in plan.dispatches)
        self._direct = self._direct_results()
        self._place_temporaries()
        self._variants: OrderedDict[tuple[object, ...], Replay] = OrderedDict()
        self._prepare()

    def _bound(self, d: Dispatch, moved: Mapping[Slot, Segment]) -> Bound:
        places = [self._at(s, moved) for s in d.slots]
        if self._gpu.sanitizer is None:
            return self._stream.bind(d.kernel, places, d.grid)
        with self._gpu.sanitizer.serving(d.doing):
            return self._stream.bind(d.kernel, places, d.grid)

    def _at(self, slot: Slot, moved: Mapping[Slot, Segment]) -> Segment:
        """Return where a slot lies, and its own bytes."""
        place = moved.get(slot.home) or self._places[slot.home]
        start = place.offset if slot.home is slot else place.offset + slot.offset
        return Segment(place.buffer, start, slot.nbytes)

    def _direct_results(self) -> dict[Slot, View]:
        """Return the temporaries that are a result as they are: a call's own buffers take their place."""
        found: dict[Slot, View] = {}
        slots = [v.buffer for v in self._plan.outputs]
        copied = {v.buffer for v, _ in self._plan.copies}
        for v in self._plan.outputs:
            whole = v.contiguous and v.offset == 0 and v.buffer.parent is None and v.nbytes == v.buffer.nbytes
            if v.buffer.role == "temp" and whole and slots.count(v.buffer) == 1 and v.buffer not in copied and v.size:
                found[v.buffer] = v
        return found

    def _lease(self, nbytes: int) -> Segment:
        buffer = self._gpu.pool.lease(nbytes)
        if self._gpu.sanitizer is not None:
            self._gpu.sanitizer.clear(buffer)
        self._held.append(buffer)
        return Segment(buffer, 0, buffer.block.size)

    def _place_temporaries(self) -> None:
        """Give temporaries memory by liveness: a slot is free again after the last launch that uses it.

        One that lies in another lives as long as that does. What runs beside others gets none that was used before: it
        would have to wait for it.
        """
        plan = self._plan
        last: dict[Slot, int] = {}
        for n, d in enumerate(plan.dispatches):
            for s in d.slots:
                last[s.root] = n
        for view in [*plan.outputs, *(v for v, _ in plan.copies)]:
            last[view.buffer.root] = len(plan.dispatches)
        free: dict[int, list[Segment]] = {}
        for n, d in enumerate(plan.dispatches):
            for s in dict.fromkeys(s.home for s in d.slots):
                self._place(s, {} if d.beside else free)
            for s in dict.fromkeys(s.root for s in d.slots):
                if s.role == "temp" and last[s] == n:
                    free.setdefault(self._gpu.pool.size_of(s.nbytes), []).append(self._places[s])
        for view in plan.outputs:
            self._place(view.buffer, {})

    def _place(self, slot: Slot, free: dict[int, list[Segment]]) -> None:
        if slot in self._places or slot in self._direct or slot.role in ("arg", "host"):
            return
        if slot.parent is not None:
            self._place(slot.parent, free)
            home = self._places[slot.parent]
            nbytes = max(-(-slot.nbytes // 16) * 16, 16)  # kernels may take four elements at once
            self._places[slot] = Segment(home.buffer, home.offset + slot.offset, nbytes)
            return
        waiting = free.get(self._gpu.pool.size_of(slot.nbytes))
        self._places[slot] = waiting.pop() if waiting else self._lease(slot.nbytes)

    @property
    def launches(self) -> int:
        """The number of launches of one replay."""
        return len(self._plan.dispatches)

    def profile(self) -> list[tuple[str, float]]:
        """Run the launches once more and return each one's kernel and GPU time in seconds; state changes as by a call."""
        if not self._variants:
            raise CaptureError("profile: the step was not called yet; call it once before")
        times = self._stream.timed(next(reversed(self._variants.values())).bound)
        return [(d.kernel.name, t) for d, t in zip(self._plan.dispatches, times, strict=True)]

    def repeat(self, count: int) -> None:
        """Launch all ``count`` times more with one submit, on the buffers of the last call; state changes as by calls."""
        if not self._variants:
            raise CaptureError("repeat: the step was not called yet; call it once before")
        last = next(reversed(self._variants.values()))
        self._stream.replay(Replay(last.launches * count, last.bound), (), None, submit=True)

    def rebind(self, ref: Ref, place: Segment) -> None:
        """Let a state that is only read live elsewhere from now on."""
        self._places[self._plan.states[ref]] = place
        self._variants.clear()
        self._prepare()

    def _prepare(self) -> None:
        """Look up once what every replay needs."""
        plan = self._plan
        self._copies = [
            transfer(self._segment(v), self._places[s]) for v, s in plan.copies if s.nbytes and v.buffer in self._places
        ]
        self._late = [(v, s) for v, s in plan.copies if s.nbytes and v.buffer not in self._places]  # arguments
        self._blocks = {p.buffer.block.id for p in (*self._places.values(), *self._numbers)}
        self._shared = [b for b in (self._bound(d, {}) if self._is_fixed(d) else None for d in plan.dispatches)]

    def _is_fixed(self, d: Dispatch) -> bool:
        return not any(s.home.role in ("arg", "host") or s.home in self._direct for s in d.slots)

    def run(self, args: Sequence[View], numbers: Sequence[Any]) -> list[View]:
        """Replay: launch on the arguments where they lie, update state, and return the results in buffers of their own."""
        turn = self._runs % self._together
        moved: dict[Slot, Segment] = {}
        upload = None
        if self._plan.hosts is not None:
            moved[self._plan.hosts] = self._numbers[turn]
            upload = (self._numbers[turn], self._pack(numbers))
        for v, slot in zip(args, self._plan.args.values(), strict=True):
            moved[slot] = self._argument(v, slot)
        after: list[Transfer] = []
        results: list[View] = []
        for v in self._plan.outputs:
            buffer = self._gpu.pool.lease(v.nbytes)
            results.append(View(buffer, layout(v.shape, v.strides, 0, v.dtype)))
            if v.buffer in self._direct:
                moved[v.buffer] = Segment(buffer, 0, buffer.block.size)
            elif v.size:
                source = self._places.get(v.buffer) or moved[v.buffer]
                start = Segment(source.buffer, source.offset + v.start, v.nbytes)
                after.append(transfer(start, Segment(buffer, 0, v.nbytes)))
        after += self._copies  # behind the results, as one of these may be state before it is replaced
        for view, slot in self._late:
            source = moved[view.buffer]
            start = Segment(source.buffer, source.offset + view.start, view.nbytes)
            after.append(transfer(start, self._places[slot]))
        self._runs += 1
        # The last turn submits: whichever run comes to these numbers next, those of this round are on their way.
        self._stream.replay(self._variant(moved), after, upload, turn == self._together - 1)
        return results

    def _argument(self, v: View, slot: Slot) -> Segment:
        """Return where an argument lies; one that cannot be bound there, lies in memory of the step's, or is a small slice
        of something, is copied."""
        buffer: Buffer = v.buffer
        walks = v.offset and slot.nbytes <= SMALL
        if v.start % BINDING == 0 and buffer.block.id not in self._blocks and not walks:
            return Segment(buffer, v.start, -(-slot.nbytes // 16) * 16 or 16)
        fresh = self._gpu.pool.lease(slot.nbytes)
        if slot.nbytes:
            copied = Segment(fresh, 0, slot.nbytes)
            self._gpu.stream.copy(Segment(buffer, v.start, slot.nbytes), copied)
        return Segment(fresh, 0, fresh.block.size)

    def _variant(self, moved: Mapping[Slot, Segment]) -> Replay:
        """Return the launches bound to a call's own buffers; the pool hands out the same few, so they are kept."""
        key = tuple((p.buffer.block.id, p.offset) for p in moved.values())
        found = self._variants.get(key)
        if found is None:
            pairs = zip(self._shared, self._plan.dispatches, strict=True)
            found = Replay.of([b if b is not None else self._bound(d, moved) for b, d in pairs])
            self._variants[key] = found
            if len(self._variants) > MOST_VARIANTS:
                self._variants.popitem(last=False)
        return found

    def _segment(self, view: View) -> Segment:
        place = self._places[view.buffer]
        return Segment(place.buffer, place.offset + view.start, view.nbytes)
