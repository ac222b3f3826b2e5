"""One dispatch of a shader under test: its memory, its workgroups, its checks."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wgpu_nn.errors import DeviceLimitError, SanitizerError, ShaderError, WgpuNNError
from wgpu_nn.gpu import ComputeStage, ComputeStages, Gpu, Place
from wgpu_nn.testing.memory import Held, Out, array_of, uniform
from wgpu_nn.wgsl import Binding, Declarations, EntryPoint, orders, read, shuffled, watched
from wgpu_nn.wgsl.bounds import REPORT_BYTES, Watched
from wgpu_nn.wgsl.faults import report

Groups = int | tuple[int, ...]
Values = Mapping[str, float]  # of overrides, by name or, where they have one, by number
_LIMIT = "max-storage-buffers-per-shader-stage"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a shader costs: the median of its seconds on the GPU, and the bytes that it was given and wrote."""

    source: str
    seconds: float
    nbytes: int

    @property
    def bandwidth(self) -> float:
        """Bytes a second."""
        return self.nbytes / self.seconds


@functools.cache
def stages(gpu: Gpu) -> ComputeStages:
    """Return the compiled shaders of a device."""
    return ComputeStages(gpu)


@functools.lru_cache(maxsize=256)
def read_text(text: str) -> Declarations:
    """Read what a text declares, once; of a broken one nothing, as the compiler says better what is wrong."""
    try:
        return read(text)
    except (IndexError, ShaderError):
        return Declarations(text, (), (), (), {}, {}, {}, ())


@functools.lru_cache(maxsize=256)
def watch_text(text: str, group: int, binding: int) -> Watched:
    """Write the checks of bounds into a text, once."""
    return watched(text, group, binding, read_text(text))


def compile_stage(
    gpu: Gpu,
    source: str,
    code: str,
    entry: str,
    values: Values,
    layout: Iterable[tuple[int, int, str]],
    trusted: bool = False,
) -> ComputeStage:
    """Compile a text, once, and return what names its pipeline."""
    stage = ComputeStage(source, code, entry, tuple(values.items()), tuple(layout), trusted)
    stages(gpu).compile(stage)
    return stage


def layout_of(source: str, b: Binding) -> tuple[int, int, str]:
    """Return group, binding and WebGPU's type of a buffer."""
    if b.space == "handle":
        raise ShaderError(
            f"shader {source}:{b.line}: expected buffers, got {b.name}: {b.type}; textures and samplers are not run"
        )
    kind = "uniform" if b.space == "uniform" else "storage" if b.access == "read_write" else "read-only-storage"
    return b.group, b.binding, kind


class Launch:
    """A shader with all that a dispatch of it needs."""

    def __init__(
        self,
        gpu: Gpu,
        source: str,
        declared: Declarations,
        entry: EntryPoint,
        values: Values,
        size: tuple[int, int, int],
        buffers: Mapping[str, Any],
        groups: Groups | None,
    ) -> None:
        self.gpu, self.source, self.declared, self.entry, self.values = gpu, source, declared, entry, values
        self.stages = stages(gpu)
        needed = {b.name for b in declared.used(entry.name)}
        self.bindings = {b.name: b for b in declared.bindings if b.name in needed or b.name in buffers}
        self.layout = [layout_of(source, b) for b in self.bindings.values()]
        self.held: dict[str, Held] = {}
        self.places: dict[tuple[int, int], Place] = {}
        self.nbytes = 0
        try:
            self._place(buffers)
            self.groups = self._groups(groups, buffers, size)
        except WgpuNNError:
            self._compile(declared.text)  # a text that does not compile is the first thing to say
            raise

    def _place(self, buffers: Mapping[str, Any]) -> None:
        if unknown := sorted(buffers.keys() ^ self.bindings.keys()):
            raise ShaderError(
                f"shader {self.source}: {self.entry.name} expected buffers {', '.join(self.bindings) or 'none'}, "
                f"got {', '.join(buffers) or 'none'}; see to {', '.join(unknown)}"
            )
        scalars = {n: self.declared.type_of(b.type).scalar for n, b in self.bindings.items()}
        for name, value in buffers.items():
            b = self.bindings[name]
            if b.space == "uniform":
                place = uniform(self.stages, name, value, scalars[name])
            else:
                given = value if isinstance(value, Out) else array_of(name, value, scalars[name])
                if isinstance(given, Out) and b.access != "read_write":
                    raise ShaderError(
                        f"shader {self.source}:{b.line}: {name} expected read_write for an Out, got {b.access}"
                    )
                self.held[name] = Held(self.stages, name, given)
                place = self.held[name].place
            self.places[b.group, b.binding] = place
            self.nbytes += place.nbytes

    def _compile(self, code: str, *extra: tuple[int, int, str], trusted: bool = False) -> ComputeStage:
        layout = [*self.layout, *extra]
        try:
            return compile_stage(self.gpu, self.source, code, self.entry.name, self.values, layout, trusted)
        except ShaderError:
            if code != self.declared.text:  # the message is to show the text as it was written
                compile_stage(self.gpu, self.source, self.declared.text, self.entry.name, self.values, self.layout)
            raise

    def _groups(
        self, groups: Groups | None, buffers: Mapping[str, Any], size: tuple[int, int, int]
    ) -> tuple[int, int, int]:
        if isinstance(groups, int):
            return groups, 1, 1
        if groups is not None:
            return (*groups, 1, 1)[:3]  # pyright: ignore[reportReturnType]
        name = next((n for n, v in buffers.items() if isinstance(v, Out)), None)
        if name is None:
            raise ShaderError(f"shader {self.source}: expected an Out to derive the workgroups from; give groups=...")
        out: Out = buffers[name]
        element = self.declared.type_of(self.bindings[name].type).element
        lanes = int(element.count) if element is not None and element.name.startswith("vec") else 1
        shape = [*out.shape[:-1], out.shape[-1] / lanes] if out.shape else [1]
        if size[1] == size[2] == 1:
            axes = [float(np.prod(shape)), 1.0, 1.0]
        else:
            kept = 3 if size[2] > 1 else 2
            axes = [*reversed(shape), 1, 1, 1][: kept - 1] + [
                float(np.prod(shape[: max(len(shape) - kept + 1, 0)])),
                1,
                1,
            ]
        return tuple(int(-(-n // s)) for n, s in zip(axes[:3], size, strict=True))  # pyright: ignore[reportReturnType]

    def _spare(self, what: str, way_out: str) -> tuple[int, int]:
        """Return where one more storage binding fits."""
        used = sum(kind != "uniform" for *_, kind in self.layout)
        most = self.gpu.limits[_LIMIT]
        if used >= most:
            raise DeviceLimitError(
                f"shader {self.source}: {what} needs one storage buffer more than the {used} of {self.entry.name}, "
                f"and {_LIMIT} of this adapter is {most}; {way_out}"
            )
        group = max((g for g, *_ in self.layout), default=0)
        return group, 1 + max((b.binding for b in self.declared.bindings if b.group == group), default=-1)

    def run(self, watch: bool, trusted: bool) -> Any:
        if watch:
            self._run_watched()
        else:
            self.stages.run(self._compile(self.declared.text, trusted=trusted), self.places, self.groups)
        return self._results()

    @property
    def timed(self) -> bool:
        """Whether the device has timestamps."""
        return "timestamp-query" in self.gpu.features

    def _results(self) -> Any:
        for held in self.held.values():
            if held.out is None and self.bindings[held.name].access == "read":
                held.read()
        found = [h.result() for h in self.held.values() if h.out is not None]
        return found[0] if len(found) == 1 else tuple(found)

    def _run_watched(self) -> None:
        group, binding = self._spare("the check of bounds", "pass watch=False")
        text = watch_text(self.declared.text, group, binding)
        stage = self._compile(text.code, (group, binding, "storage"))
        lease, place = self.stages.storage(np.zeros(REPORT_BYTES // 4, np.uint32), 0, REPORT_BYTES)
        self.stages.run(stage, {**self.places, (group, binding): place}, self.groups)
        found = np.frombuffer(self.gpu.stream.read(lease, 0, REPORT_BYTES), np.uint32)
        if found[0]:
            raise SanitizerError(report(f"shader {self.source}", text.sites, found))

    def measure(self, trusted: bool, times: int) -> Cost:
        stage = self._compile(self.declared.text, trusted=trusted)
        self.stages.run(stage, self.places, self.groups)
        seconds = self.stages.run(stage, self.places, self.groups, times)
        return Cost(self.source, statistics.median(seconds), self.nbytes)

    def find_races(self, others: int) -> None:
        group, binding = self._spare("the search for races", "use an adapter with more")
        text = shuffled(self.declared.text, group, binding, self.declared)
        stage = self._compile(text, (group, binding, "read-only-storage"))
        first: list[np.ndarray] = []
        for order in orders(int(np.prod(self.groups)), others, self.gpu.software):
            for held in self.held.values():
                held.reset()
            for head in order.heads:
                words = order.words(head)
                _, place = self.stages.storage(words, 0, words.nbytes)
                self.stages.run(stage, {**self.places, (group, binding): place}, self.groups)
            found = [h.read().view(np.uint32) for h in self.held.values()]
            first = first or found
            for held, before, now in zip(self.held.values(), first, found, strict=True):
                self._differ(held.name, before, now, f"with workgroups {order.what}")
        for held in self.held.values():
            held.reset()

    def same(self, first: Any, other: Any, what: str) -> None:
        """Raise unless two results have the same bits."""
        names = [h.name for h in self.held.values() if h.out is not None]
        pairs = [(first, other)] if len(names) == 1 else zip(first, other, strict=True)
        for name, (a, b) in zip(names, pairs, strict=True):
            self._differ(name, a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8), what)

    def _differ(self, name: str, before: np.ndarray, now: np.ndarray, what: str) -> None:
        wrong = np.flatnonzero(before != now)
        if wrong.size:
            at = int(wrong[0]) * before.itemsize // 4
            raise SanitizerError(
                f"shader {self.source}: {self.entry.name}: expected the same results in any order, got {wrong.size} "
                f"{'words' if before.itemsize == 4 else 'bytes'} of {name} that differ {what}, the first at word {at}; "
                "do two workgroups write there, or does one read what another writes?"
            )
