"""Orders launches so that those that need not wait for each other are neighbours, as a GPU then runs them at once.

WebGPU puts a barrier before a launch that reads what its pass has written, or writes what its pass has used, and looks at
whole buffers. A barrier waits for all launches before it. So each that needs one is followed by those that need none. Where
calls share a pass, what the call before has used is waited for as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from wgpu_nn.graph.plan import Dispatch
from wgpu_nn.kernels.plan import Slot

AHEAD = (
    32  # launches from the first that waits on, among which the next is chosen: what they make must be kept meanwhile
)

_Uses = dict[Slot, bool]  # memory, and whether it is written


def side_by_side(dispatches: Sequence[Dispatch]) -> list[Dispatch]:
    """Return the launches in an order that keeps what depends on what, those that need no barrier marked ``beside``."""
    uses = [_uses(d) for d in dispatches]
    before = _before(uses)
    waiting, done = list(range(len(dispatches))), set[int]()
    seen: _Uses = {}
    out: list[Dispatch] = []
    while waiting:
        ready = [n for n in waiting[:AHEAD] if before[n] <= done]
        # The first of those that most can run beside.
        leader = max(ready, key=lambda n: (len(_riders(n, ready, uses, seen)), -n))
        riders = _riders(leader, ready, uses, seen)
        out += [dispatches[leader], *(replace(dispatches[n], beside=True) for n in riders)]
        for n in (leader, *riders):
            seen.update(uses[n])
            waiting.remove(n)
            done.add(n)
    return out


def _uses(d: Dispatch) -> _Uses:
    found: _Uses = {}
    for slot, access in zip(d.slots, d.kernel.access, strict=True):
        found[slot.root] = found.get(slot.root, False) or access == "w"
    return found


def _before(uses: Sequence[_Uses]) -> list[set[int]]:
    """Return which launches must be done before each: the writers of what it uses, and the readers of what it writes."""
    writer: dict[Slot, int] = {}
    readers: dict[Slot, set[int]] = {}
    found: list[set[int]] = []
    for n, use in enumerate(uses):
        needed: set[int] = set()
        for slot, written in use.items():
            if slot in writer:
                needed.add(writer[slot])
            if written:
                needed |= readers.pop(slot, set())
                writer[slot] = n
            else:
                readers.setdefault(slot, set()).add(n)
        found.append(needed)
    return found


def _riders(leader: int, ready: Sequence[int], uses: Sequence[_Uses], seen: Mapping[Slot, bool]) -> list[int]:
    """Return those that need no barrier right behind ``leader``."""
    known = {**seen, **uses[leader]}
    found: list[int] = []
    for n in ready:
        if n != leader and not any(known.get(s) if not written else s in known for s, written in uses[n].items()):
            found.append(n)
            known.update(uses[n])
    return found
