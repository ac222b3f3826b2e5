"""Recipes: an op planned once for operands that lie in a certain way, and launched again on whatever memory lies so.

Planners are asked only for a new recipe, and every op of eager mode runs by one: there is no other way to launch it.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from wgpu_nn import switches
from wgpu_nn.backends.base import Traced
from wgpu_nn.dtype import DType, Scalar
from wgpu_nn.errors import CaptureError
from wgpu_nn.gpu import Buffer, Gpu, Kernel, Prepared
from wgpu_nn.kernels import Grid, Input, Target, Template, View, Words, plan_op, whole
from wgpu_nn.kernels.plan import Candidate, Late, Layout, Number, Slot, Task, bits
from wgpu_nn.kernels.storage import stored
from wgpu_nn.kernels.views import VIEWS
from wgpu_nn.ops import DEFAULT_DTYPES, Spec, infer
from wgpu_nn.shape import Shape

MOST_RECIPES = 4096  # of a backend, of some 2 KB each; then the oldest quarter is forgotten

Window = tuple[int, int] | None  # bytes from the start of a buffer, and how many: what a launch is to see of it


class Launch(NamedTuple):
    """A launch of a recipe. Buffers are numbered: operands first, then what is leased on the way.

    ``leases`` are the bytes of the buffers that are needed from here on, ``ends`` are those that are not needed behind it.
    ``late`` are the words that each run gives: where in ``params``, of which operand, as an element of which type.
    """

    prepared: Prepared
    buffers: tuple[int, ...]
    windows: tuple[Window, ...] | None  # None: all are seen as a whole
    params: bytes
    late: tuple[tuple[int, int, DType], ...]
    leases: tuple[int, ...]
    ends: tuple[int, ...]


class Recipe(NamedTuple):
    """What an op launches, in order, and where its result lies; what is not launched for is leased at the end."""

    launches: tuple[Launch, ...]
    rest: tuple[int, ...]
    out: int
    layout: Layout

    def run(self, gpu: Gpu, operands: Sequence[View | Scalar]) -> View:
        """Launch the op on operands that lie as those which it was planned for."""
        lease, dispatch = gpu.pool.lease, gpu.stream.dispatch
        buffers: list[Any] = [x.buffer if type(x) is View else None for x in operands]
        for prepared, used, windows, params, late, leases, ends in self.launches:
            for nbytes in leases:
                buffers.append(lease(nbytes))
            # NOTE: no name may hold on to these: what ends here is to serve the next launch.
            dispatch(
                prepared,
                [buffers[n] for n in used] if windows is None else _seen(buffers, used, windows),
                _filled(params, late, operands) if late else params,
            )
            for n in ends:
                buffers[n] = None
        for nbytes in self.rest:
            buffers.append(lease(nbytes))
        return View(buffers[self.out], self.layout)


def _seen(buffers: Sequence[Any], used: Sequence[int], windows: Sequence[Window]) -> list[Buffer]:
    """Return what a launch sees of its buffers."""
    return [buffers[n] if w is None else buffers[n].window(*w) for n, w in zip(used, windows, strict=True)]


def _filled(params: bytes, late: Sequence[tuple[int, int, DType]], operands: Sequence[Any]) -> bytearray:
    """Return parameters with the numbers of this run."""
    found = bytearray(params)
    for at, number, dtype in late:
        found[at : at + 4] = bits(operands[number], dtype).to_bytes(4, "little")
    return found


class _Draft:
    """The site of an op's planner: keeps its launches, on slots instead of buffers."""

    def __init__(self, target: Target, tuned: bool) -> None:
        self.target, self.tuned = target, tuned
        self.launches: list[tuple[Kernel, tuple[Slot, ...], Words, Grid]] = []

    def empty(self, shape: Shape, dtype: DType) -> View:
        return whole(shape, dtype, Slot("temp", Spec(shape, dtype).nbytes))

    def launch(self, template: Template, key: Hashable, words: Words, views: Sequence[View], grid: Grid) -> None:
        if 0 not in grid:
            kernel = stored(template(key, None), views, self.target.halves)
            self.launches.append((kernel, tuple([v.buffer for v in views]), words, grid))

    def choose(self, task: Task, candidates: Sequence[Candidate]) -> int:
        # Eager mode stays with the rules: it meets each size once, and its bits are the oracle of captured ones.
        return 0

    def recipe(self, gpu: Gpu, operands: Sequence[Slot | None], out: View) -> Recipe:
        """Return what was planned for operands in these slots."""
        numbers = {slot: n for n, slot in enumerate(operands) if slot is not None}
        result, count = out.buffer.home, len(operands)
        last = {s.home: n for n, (_, used, _, _) in enumerate(self.launches) for s in used}
        found: list[Launch] = []
        for n, (kernel, used, words, grid) in enumerate(self.launches):
            homes = [s.home for s in used]
            fresh = [h for h in dict.fromkeys(homes if n else [result, *homes]) if h not in numbers]
            numbers |= {h: count + k for k, h in enumerate(fresh)}
            count += len(fresh)
            ends = [numbers[h] for h, end in last.items() if end == n and h.role == "temp" and h is not result]
            windows = tuple([None if s.home is s else (s.offset, s.nbytes) for s in used])
            found.append(
                Launch(
                    gpu.stream.prepare(kernel, grid),
                    tuple([numbers[h] for h in homes]),
                    windows if any(windows) else None,
                    np.array([w & 0xFFFFFFFF for w in words], np.uint32).tobytes(),
                    tuple([(4 * i, w.number.index, w.dtype) for i, w in enumerate(words) if isinstance(w, Late)]),
                    tuple([h.nbytes for h in fresh]),
                    tuple(ends),
                )
            )
        rest = () if result in numbers else (result.nbytes,)
        return Recipe(tuple(found), rest, numbers.get(result, count), out.layout)


def execute(site: Any, op: str, operands: Sequence[Input], attrs: Mapping[str, Any], out: Spec) -> View:
    """Run one op at ``site``: a view if it is one, else what its planner launches."""
    view = VIEWS.get(op)
    if view is not None:
        return view(site, operands[0], **attrs)
    target = site.empty(out.shape, out.dtype)
    plan_op(site, op, operands, attrs, target)
    return target


class Recipes:
    """The recipes of a backend, by op, attributes, layouts of operands, and the switches that planners look at."""

    def __init__(self, gpu: Gpu, target: Target, tuned: bool) -> None:
        self._gpu, self._target, self._tuned = gpu, target, tuned
        self._known: dict[tuple[Any, ...], Recipe] = {}
        self._generation = gpu.generation
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, op: str, operands: Sequence[View | Scalar], attrs: Mapping[str, Any]) -> Recipe:
        """Return the recipe of an op; raise the error that its operands deserve."""
        # Kernels see the memory of an operand as a whole, unless that is large. Of a number its kind matters alone.
        parts: list[object] = [op, switches.state()]
        for x in operands:
            if type(x) is View:
                parts.append(x.layout)
                parts.append(x.buffer.nbytes)
            else:
                parts.append(type(x))
        if attrs:
            parts.extend(attrs.items())
        key = tuple(parts)
        found = self._known.get(key) if self._generation == self._gpu.generation else None
        return self._plan(key, op, operands, attrs) if found is None else found

    def _plan(
        self, key: tuple[Any, ...], op: str, operands: Sequence[View | Scalar], attrs: Mapping[str, Any]
    ) -> Recipe:
        for x in operands:
            if isinstance(x, Traced):
                raise CaptureError(f"{op}: uses a value of a captured function outside of it; return it from there")
        out = infer(op, [x.spec if isinstance(x, View) else x for x in operands], attrs, DEFAULT_DTYPES)
        slots = [Slot("operand", x.buffer.nbytes) if isinstance(x, View) else None for x in operands]
        given = [
            View(slot, x.layout) if slot is not None and isinstance(x, View) else Number(n)
            for n, (x, slot) in enumerate(zip(operands, slots, strict=True))
        ]
        draft = _Draft(self._target, self._tuned)
        generation = self._gpu.generation
        made = draft.recipe(self._gpu, slots, execute(draft, op, given, attrs, out))
        if made.launches:
            self._gpu.counts.plans += 1
        with self._lock:
            if self._generation != self._gpu.generation:
                self._known.clear()
                self._generation = self._gpu.generation
            if len(self._known) >= MOST_RECIPES:
                for old in list(self._known)[: MOST_RECIPES // 4]:
                    del self._known[old]
            if generation == self._generation:
                self._known[key] = made
        return made
