"""Watches a device's own launches: accesses out of bounds, races, what nobody wrote, or the first NaN. Slow on purpose.

Each launch is encoded with what its check needs, and every submit waits for what was found; the error is raised where the
launch was recorded, or where the step that holds it was called.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import wgpu

from wgpu_nn.errors import SanitizerError
from wgpu_nn.gpu.commands import Grid, Launch, Resource, bind_group, encode
from wgpu_nn.gpu.failure import device_errors
from wgpu_nn.gpu.kernel import PARAMS_BYTES, Kernel, compile_module
from wgpu_nn.gpu.native import ffi, lib
from wgpu_nn.gpu.pool import Buffer, Segment
from wgpu_nn.wgsl import Declarations, Site, orders, read, shuffled, watched
from wgpu_nn.wgsl.bounds import REPORT_BYTES
from wgpu_nn.wgsl.faults import report
from wgpu_nn.wgsl.scan import COMPARED, FOUND_BYTES, POISON, SCAN, WORKGROUP

if TYPE_CHECKING:
    from wgpu_nn.gpu.device import Gpu

ORDERS = 2  # other orders that a launch is repeated in: backwards, and one at random
MOST_GROUPS = 1 << 22  # of a launch whose order is changed; beyond that it runs as it is
MOST_TEXTS = 256  # kept for who launches them again; those of llvmpipe take some 500 KB each
_NAN, _INF = (0x7FC00000, 0xFFC00000), (0x7F800000, 0xFF800000)
_ALL = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST


class Watched(NamedTuple):
    """A launch's kernel and memory, and the op that it serves. It holds no lease, so that memory is used again as ever."""

    kernel: Kernel
    places: tuple[Resource, ...]
    doing: str


class Text(NamedTuple):
    """A kernel's text with a check in it, compiled; ``sites`` are those of the check of bounds."""

    pipeline: wgpu.GPUComputePipeline
    layout: wgpu.GPUBindGroupLayout
    sites: tuple[Site, ...]


class Sanitizer:
    """An observer of a device's stream.

    ``nan`` finds the first kernel that makes NaN of inputs without any, and says which one made the first infinity before;
    ``inf`` finds infinities as well. A kernel that was given NaN or infinity as a number is taken at its word.
    Halves are not looked at, only f32.
    ``bounds`` finds indices outside of buffers. ``race`` runs each launch in other orders of its workgroups, and compares
    bit by bit.
    ``unwritten`` fills memory with a pattern as it is leased, and finds that in what an eager kernel is given to read, or
    the host; captured steps share memory out among their results, and are not looked at. ``unwatched`` names kernels that
    could not be watched: no storage buffer was left for the check.
    """

    def __init__(self, gpu: Gpu, mode: str) -> None:
        self.gpu, self.mode = gpu, mode
        self._doing = ""  # the op whose launches are recorded
        self.unwatched: set[str] = set()
        self._bound: dict[int, Watched] = {}
        self._texts: dict[Kernel, Text] = {}
        self._declared = functools.lru_cache(MOST_TEXTS)(read)
        self._scans: dict[str, Text] = {}
        self._held: list[object] = []  # what the batch under way refers to
        self._checks: list[Callable[[], None]] = []  # run when it is done
        self._infinite = ""  # who made the first infinity

    @contextmanager
    def serving(self, op: str) -> Iterator[None]:
        """Let what is launched or bound in a ``with`` block be told as this op's."""
        before, self._doing = self._doing, op
        try:
            yield
        finally:
            self._doing = before

    # --- what the stream calls, under its lock -----------------------------------------------------------------------
    def bound(self, group: Any, kernel: Kernel, places: Sequence[Segment]) -> None:
        """Note what a bind group binds."""
        self._bound[_address(group)] = Watched(kernel, tuple(_raw(p) for p in places), self._doing)

    def encode(self, encoder: Any, launches: Sequence[Launch]) -> None:
        """Write launches into an encoder, each with its check."""
        checks = {"bounds": self._encode_bounds, "race": self._encode_race, "unwritten": self._encode_unwritten}
        check = checks.get(self.mode, self._encode_nan)
        for launch in launches:
            check(encoder, launch, self._bound[_address(launch[1])])

    def submitted(self) -> None:
        """Wait for what was found, and raise the first of it."""
        checks, self._checks = self._checks, []
        held, self._held = self._held, []
        try:
            for check in checks:
                check()
        finally:
            held.clear()

    # --- bounds ----------------------------------------------------------------------------------------------------
    def _encode_bounds(self, encoder: Any, launch: Launch, w: Watched) -> None:
        text = self._text(w.kernel)
        if text is None:
            _run(encoder, launch)
            return
        found = self._buffer(REPORT_BYTES)
        _run(encoder, self._launch(text, w, (found, 0, REPORT_BYTES), launch))

        def check() -> None:
            words = self._words(found)
            if words[0]:
                raise SanitizerError(report(f"{self._name(w, launch[3])}: {w.kernel.source}", text.sites, words))

        self._checks.append(check)

    def _exact(self, kernel: Kernel, nbytes: int, n: int) -> int:
        """Return the bytes of a binding that are meant to be used: whole elements of its type."""
        found = self._read(kernel).type_of(self._read(kernel).bindings[n].type)
        lanes = {"vec2": 2, "vec3": 4, "vec4": 4}.get(found.element.name if found.element is not None else "", 1)
        stride = max(lanes * (2 if found.scalar == "f16" else 4), 4)
        return max(stride, -(-nbytes // stride) * stride)

    # --- race ------------------------------------------------------------------------------------------------------
    def _encode_race(self, encoder: Any, launch: Launch, w: Watched) -> None:
        text, grid = self._text(w.kernel), launch[3]
        count = grid[0] * grid[1] * grid[2]
        if text is None or count > MOST_GROUPS:
            _run(encoder, launch)
            return
        written = [(n, p) for n, (p, a) in enumerate(zip(w.places, w.kernel.access)) if a == "w"]
        # What kernels that take four elements at once find behind the last is theirs as well.
        whole = [(raw, offset, -(-nbytes // 16) * 16) for _, (raw, offset, nbytes) in written]
        before = [self._copy(encoder, place) for place in whole]
        first: list[Resource] = []
        # As it is first, by the same text: compilers may round another one differently.
        for order in orders(count, ORDERS, self.gpu.software):
            given = self._filled(order.words(order.heads[0]))
            if first:
                for place, saved in zip(whole, before, strict=True):
                    _transfer(encoder, saved, place)
            for head in order.heads:
                _transfer(encoder, self._filled(head), given)
                _run(encoder, self._launch(text, w, given, launch))
            if not first:
                first = [self._copy(encoder, place) for _, place in written]
                continue
            for (n, place), saved in zip(written, first, strict=True):
                found = self._scan(encoder, "differ", place, saved)
                what = order.what
                self._checks.append(lambda n=n, found=found, what=what: self._raise_race(w, grid, n, found, what))
        for (_, place), saved in zip(written, first, strict=True):
            _transfer(encoder, saved, place)

    def _raise_race(self, w: Watched, grid: Grid, n: int, found: wgpu.GPUBuffer, what: str) -> None:
        words = self._words(found)
        if words[0]:
            name = self._read(w.kernel).bindings[n].name
            raise SanitizerError(
                f"{self._name(w, grid)}: expected the same results in any order of workgroups, got {words[0]:,} words of "
                f"{name} that differ {what}, the first at word {_first(words[1])}; do two workgroups write there, or does one "
                "read what another writes?"
            )

    # --- memory that nobody wrote ------------------------------------------------------------------------------------
    def leased(self, buffer: Buffer) -> None:
        """Fill memory that the pool hands out; what is recorded already may use it still, and goes first."""
        self.gpu.stream.flush()
        with device_errors("debug"):
            self.gpu.raw.queue.write_buffer(buffer.block.raw, 0, np.full(buffer.block.size // 4, POISON, np.uint32))

    def clear(self, buffer: Buffer) -> None:
        """Let memory in which several results lie side by side begin as zeros: kernels take the gaps between them along."""
        self.gpu.stream.upload(buffer, np.zeros(buffer.block.size // 4, np.uint32))

    def arrived(self, data: bytearray) -> None:
        """Look at what the host has read."""
        if self.mode == "unwritten":
            found = np.flatnonzero(np.frombuffer(data, np.uint32) == POISON)
            if found.size:
                raise SanitizerError(
                    f"read: expected what something has written, got {found.size:,} words that nothing has, the first at "
                    f"word {found[0]}; launch more workgroups?"
                )

    def _encode_unwritten(self, encoder: Any, launch: Launch, w: Watched) -> None:
        nothing = (self._buffer(16), 0, 16)
        eager = w.kernel.params  # the sizes of a step are in its texts
        reads = [(n, p) for n, (p, a) in enumerate(zip(w.places, w.kernel.access)) if eager and a == "r"]
        given = [(n, self._scan(encoder, "unwritten", place, nothing)) for n, place in reads]
        _run(encoder, launch)

        def check() -> None:
            for n, found in given:
                words = self._words(found)
                if words[0]:
                    raise SanitizerError(
                        f"{self._name(w, launch[3])}: expected to read what something has written, got {words[0]:,} words of "
                        f"{self._read(w.kernel).bindings[n].name} that nothing has, the first at word {_first(words[1])}; "
                        "look at what was to write there"
                    )

        self._checks.append(check)

    # --- NaN and infinity ------------------------------------------------------------------------------------------
    def _encode_nan(self, encoder: Any, launch: Launch, w: Watched) -> None:
        floats = [
            (n, p, a)
            for n, (p, a) in enumerate(zip(w.places, w.kernel.access))
            if self._read(w.kernel).type_of(self._read(w.kernel).bindings[n].type).scalar == "f32"
        ]
        nothing = (self._buffer(16), 0, 16)
        given = [(n, self._scan(encoder, "born", place, nothing)) for n, place, a in floats if a == "r"]
        before = [(n, place, self._copy(encoder, place)) for n, place, a in floats if a == "w"]
        named = self._named(launch, w.kernel)
        _run(encoder, launch)
        made = [(n, self._scan(encoder, "born", place, saved)) for n, place, saved in before]
        if made:
            self._checks.append(lambda: self._raise_nan(w, launch[3], given, made, named))

    def _named(self, launch: Launch, kernel: Kernel) -> set[int]:
        """Return the numbers that a launch was given, or that its text has for such."""
        params = self.gpu.stream.parameters(launch[2]) if launch[2] >= 0 else b""
        return set(np.frombuffer(params, np.uint32).tolist()) | {
            int(n) for n in re.findall(r"\b(\d{10})u\b", kernel.code)
        }

    def _raise_nan(
        self,
        w: Watched,
        grid: Grid,
        given: Sequence[tuple[int, wgpu.GPUBuffer]],
        made: Sequence[tuple[int, wgpu.GPUBuffer]],
        named: set[int],
    ) -> None:
        had = [self._words(found) for _, found in given]
        has_nan, has_inf = any(h[0] for h in had), any(h[2] for h in had)
        bindings = self._read(w.kernel).bindings
        for n, found in made:
            nans, nan_at, infinities, infinity_at = (int(x) for x in self._words(found)[:4])
            name, who = bindings[n].name, self._name(w, grid)
            if infinities and not has_inf and not named.intersection(_INF):
                place = f"{infinities:,} in {name}, the first at element {_first(infinity_at)}"
                if self.mode == "inf":
                    raise SanitizerError(f"{who}: expected finite numbers of finite inputs, got infinities: {place}")
                self._infinite = self._infinite or f"{who} ({place})"
            if nans and not has_nan and not named.intersection(_NAN):
                cause = f"; the first infinity came from {self._infinite}" if self._infinite else ""
                self._infinite = ""
                raise SanitizerError(
                    f"{who}: expected numbers of inputs without NaN, got {nans:,} NaN in {name}, the first at element "
                    f"{_first(nan_at)}{cause}; look at what goes into it"
                )

    # --- the parts of all of them ------------------------------------------------------------------------------------
    def _name(self, w: Watched, grid: Grid) -> str:
        bound = ", ".join(
            f"{b.name} {nbytes} bytes" for b, (*_, nbytes) in zip(self._read(w.kernel).bindings, w.places)
        )
        op = f" for {w.doing}" if w.doing else ""
        return f"kernel {w.kernel.name}{op} on {grid[0]} x {grid[1]} x {grid[2]} workgroups ({bound})"

    def _read(self, kernel: Kernel) -> Declarations:
        return self._declared(kernel.code)

    def _text(self, kernel: Kernel) -> Text | None:
        """Return a kernel's text with the check, or None if the adapter has no storage buffer left for it."""
        most = self.gpu.limits["max-storage-buffers-per-shader-stage"]
        if len(kernel.access) >= most:
            self.unwatched.add(kernel.name)
            return None
        found = self._texts.get(kernel)
        if found is None:
            extra, sites = len(kernel.access) + kernel.params, ()
            if self.mode == "bounds":
                w = watched(kernel.code, 0, extra, self._read(kernel))
                code, sites = w.code, w.sites
            else:
                code = shuffled(kernel.code, 0, extra, self._read(kernel))
            types = ["read-only-storage" if a == "r" else "storage" for a in kernel.access]
            types += ["uniform"] * kernel.params + ["storage" if self.mode == "bounds" else "read-only-storage"]
            if len(self._texts) >= MOST_TEXTS:
                del self._texts[next(iter(self._texts))]  # what is encoded holds it
            found = self._texts[kernel] = self._compile(kernel, code, "main", types, sites)
        return found

    def _compile(
        self, kernel: Kernel, code: str, entry: str, types: Sequence[str], sites: tuple[Site, ...] = ()
    ) -> Text:
        uniform = {"type": "uniform", "has_dynamic_offset": True, "min_binding_size": PARAMS_BYTES}
        entries: list[dict[str, object]] = [
            {
                "binding": n,
                "visibility": wgpu.ShaderStage.COMPUTE,
                "buffer": uniform if kind == "uniform" else {"type": kind},
            }
            for n, kind in enumerate(types)
        ]
        raw = self.gpu.raw
        with device_errors(f"compile {kernel.name} with checks"):
            text = Kernel(kernel.name, code, kernel.access, kernel.params, kernel.source, False)
            module = compile_module(raw, text, False)
            layout = raw.create_bind_group_layout(entries=entries)  # pyright: ignore[reportArgumentType]
            both = raw.create_pipeline_layout(bind_group_layouts=[layout])
            stage = {"module": module, "entry_point": entry}
            return Text(raw.create_compute_pipeline(label=kernel.name, layout=both, compute=stage), layout, sites)  # pyright: ignore[reportArgumentType]

    def _launch(self, text: Text, w: Watched, extra: Resource, launch: Launch) -> Launch:
        """Return the launch of the text with the check, on the same memory and ``extra``."""
        places = [(raw, offset, self._exact(w.kernel, nbytes, n)) for n, (raw, offset, nbytes) in enumerate(w.places)]
        resources = [*places, extra]
        if w.kernel.params:
            resources.insert(len(w.kernel.access), self.gpu.stream.arena)
        group = self._group(text, resources)
        return (text.pipeline._internal, group._internal, launch[2], launch[3])

    def _group(self, text: Text, resources: Sequence[Resource]) -> wgpu.GPUBindGroup:
        group = bind_group(self.gpu.raw, text.layout, resources)
        self._held.append(group)
        return group

    def _scan(self, encoder: Any, entry: str, now: Resource, other: Resource) -> wgpu.GPUBuffer:
        """Launch a walk over two buffers, and return where what it finds is counted."""
        text = self._scans.get(entry)
        if text is None:
            kernel = Kernel(entry, SCAN, COMPARED, False, "sanitizer")
            types = ["read-only-storage", "read-only-storage", "storage"]
            text = self._scans[entry] = self._compile(kernel, SCAN, entry, types)
        found = self._buffer(FOUND_BYTES)
        group = self._group(text, (now, other, (found, 0, FOUND_BYTES)))
        groups = min(-(-now[2] // (4 * WORKGROUP)), 65535)
        _run(encoder, (text.pipeline._internal, group._internal, -1, (groups, 1, 1)))
        return found

    def _copy(self, encoder: Any, place: Resource) -> Resource:
        copy = (self._buffer(place[2]), 0, place[2])
        _transfer(encoder, place, copy)
        return copy

    def _filled(self, words: np.ndarray) -> Resource:
        """Return a buffer with words in it. A head is shorter than what it is copied to."""
        buffer = self._buffer(words.nbytes)
        self.gpu.raw.queue.write_buffer(buffer, 0, words)
        return buffer, 0, words.nbytes

    def _buffer(self, nbytes: int) -> wgpu.GPUBuffer:
        with device_errors("debug"):
            made = self.gpu.raw.create_buffer(size=nbytes, usage=_ALL)
        self._held.append(made)
        return made

    def _words(self, buffer: wgpu.GPUBuffer) -> np.ndarray:
        return np.frombuffer(self.gpu.raw.queue.read_buffer(buffer), np.uint32)


def _raw(place: Segment) -> Resource:
    return place.buffer.block.raw, place.offset, max(4, -(-place.nbytes // 4) * 4)


def _run(encoder: Any, launch: Launch) -> None:
    compute = lib.wgpuCommandEncoderBeginComputePass(encoder, ffi.NULL)
    encode(compute, [launch])
    lib.wgpuComputePassEncoderEnd(compute)
    lib.wgpuComputePassEncoderRelease(compute)


def _transfer(encoder: Any, source: Resource, target: Resource) -> None:
    lib.wgpuCommandEncoderCopyBufferToBuffer(
        encoder, source[0]._internal, source[1], target[0]._internal, target[1], source[2]
    )


def _first(word: Any) -> int:
    """Return the smallest index: the scan keeps the largest of those with all bits flipped, as 0 is where it starts."""
    return ~int(word) & 0xFFFFFFFF


def _address(raw: Any) -> int:
    return int(ffi.cast("uintptr_t", raw))
