"""A WGSL text under test: what it declares, and one call that runs it on NumPy arrays, watched by default."""

from __future__ import annotations

import functools
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wgpu_nn.errors import DeviceLimitError, SanitizerError, ShaderError
from wgpu_nn.gpu import ComputeStage, ComputeStages, Gpu, Place
from wgpu_nn.wgsl.faults import report
from wgpu_nn.testing.memory import Held, Out, array_of, uniform
from wgpu_nn.wgsl import Binding, Declarations, EntryPoint, Override, read, shuffled, watched
from wgpu_nn.wgsl.bounds import REPORT_BYTES, Watched

Groups = int | tuple[int, ...]
Buffers = Mapping[str, Any]
Constants = Mapping[str, Any]
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
def _stages(gpu: Gpu) -> ComputeStages:
    return ComputeStages(gpu)


@functools.lru_cache(maxsize=256)
def _read(text: str) -> Declarations:
    return read(text)


@functools.lru_cache(maxsize=256)
def _watched(text: str, group: int, binding: int) -> Watched:
    return watched(text, group, binding, _read(text))


class Shader:
    """A WGSL file, or a text, and the device that it is tested on.

    ``declarations`` is appended, as module scope has no order: what a body leaves to its users can be given there. Line
    numbers of errors stay those of the file.
    """

    def __init__(self, gpu: Gpu, source: str | Path, *, declarations: str = "", name: str = "") -> None:
        self.gpu = gpu
        self.costs: list[Cost] | None = None  # where the cost of every run is noted, if it is to be
        if isinstance(source, Path) or (source.endswith(".wgsl") and "\n" not in source):
            path = Path(source)
            try:
                self.text, self.source = path.read_text(encoding="utf-8"), name or path.name
            except OSError as error:
                raise ShaderError(
                    f"shader {path}: expected a WGSL file, got {error.strerror or error}; is the path right?"
                ) from None
        else:
            self.text, self.source = source, name or "text"
        if declarations:
            self.text = f"{self.text}\n{declarations}\n"

    # --- reflection ------------------------------------------------------------------------------------------------
    @property
    def declared(self) -> Declarations:
        """All that the text declares."""
        return _read(self.text)

    @property
    def bindings(self) -> dict[str, Binding]:
        """Its resource variables by name: group, binding, address space, access, type and line."""
        return {b.name: b for b in self.declared.bindings}

    @property
    def overrides(self) -> dict[str, Override]:
        """Its pipeline constants by name: id, type, default and line."""
        return {o.name: o for o in self.declared.overrides}

    @property
    def entry_points(self) -> dict[str, EntryPoint]:
        """Its entry points by name: stage, expressions of the workgroup size, line."""
        return {e.name: e for e in self.declared.entry_points}

    def workgroup_size(self, entry: str = "", constants: Constants | None = None) -> tuple[int, int, int]:
        """Return the invocations of a workgroup along x, y and z; overrides have their defaults or what ``constants`` says."""
        declared, given = self._with(constants)
        found = self._entry(declared, entry)
        sizes = [declared.value(e, given) for e in found.workgroup_size]
        if None in sizes:
            raise ShaderError(
                f"shader {self.source}: expected a workgroup size of integers and constants that are set, "
                f"got {', '.join(found.workgroup_size)}; give the overrides in constants"
            )
        return tuple(n for n in sizes if n is not None)[:3]  # pyright: ignore[reportReturnType]

    def unseen(self) -> tuple[int, ...]:
        """Return the lines whose accesses go through pointers, which the check of bounds does not see."""
        return _watched(self.text, 0, 0).unseen

    def _entry(self, declared: Declarations, entry: str) -> EntryPoint:
        found = {e.name: e for e in declared.entry_points if e.stage == "compute"}
        if entry in found or (not entry and len(found) == 1):
            return found[entry or next(iter(found))]
        if not found:
            self._compile(declared.text, "main", {}, ())  # if the text is broken, that is what to say
        raise ShaderError(
            f"shader {self.source}: expected {'a compute entry point' if not entry else f'an entry point {entry}'}, "
            f"got {', '.join(found) or 'none'}; name one by entry=..."
        )

    def _with(self, constants: Constants | None) -> tuple[Declarations, dict[str, float]]:
        """Return the text with constants that it does not declare appended, and the values of its overrides."""
        constants = constants or {}
        values = {n: float(v) for n, v in constants.items() if n in self.overrides}
        lines = [f"const {name} = {_literal(v)};" for name, v in constants.items() if name not in values]
        return (_read("\n".join([self.text, *lines, ""])) if lines else self.declared), values

    # --- compilation -----------------------------------------------------------------------------------------------
    def _compile(
        self,
        code: str,
        entry: str,
        values: Mapping[str, float],
        bindings: Iterable[tuple[int, int, str]],
        trusted: bool = False,
    ) -> ComputeStage:
        constants = tuple((self._key(name), value) for name, value in values.items())
        stage = ComputeStage(self.source, code, entry, constants, tuple(bindings), trusted)
        _stages(self.gpu).compile(stage)
        return stage

    def _key(self, name: str) -> str:
        own = self.overrides[name].id
        return name if own is None else str(own)

    def compile(self, *, entry: str = "", constants: Constants | None = None) -> None:
        """Compile it; ShaderError has the file, the line and a caret."""
        declared, values = self._with(constants)
        found = self._entry(declared, entry)
        self._compile(declared.text, found.name, values, [self._layout(b) for b in declared.used(found.name)])

    def fails_to_compile(
        self, match: str = "", *, line: int | None = None, constants: Constants | None = None
    ) -> ShaderError:
        """Return the error of a text that must not compile: it matches ``match`` and is on ``line``; AssertionError if not."""
        try:
            self.compile(constants=constants)
        except ShaderError as error:
            text = str(error)
            if not re.search(match, text):
                raise AssertionError(f"shader {self.source}: expected an error like {match!r}, got {text}") from None
            if line is not None and f"{self.source}:{line}:" not in text:
                raise AssertionError(f"shader {self.source}: expected an error on line {line}, got {text}") from None
            return error
        raise AssertionError(f"shader {self.source}: expected not to compile, but it does")

    # --- runs ------------------------------------------------------------------------------------------------------
    def run(
        self,
        buffers: Buffers,
        groups: Groups | None = None,
        *,
        constants: Constants | None = None,
        entry: str = "",
        watch: bool = True,
        trusted: bool = False,
    ) -> Any:
        """Run it once on arrays by the names of its bindings, and return the array of its Out; a tuple, if there are several.

        ``groups`` is the number of workgroups, along x or along x, y and z. Without it there is an invocation for each
        element of the first Out: x walks them all, or, in a workgroup of two or three dimensions, the last axis, y the one
        before it, z the one before that. ``constants`` set overrides; names that the text does not declare are
        appended as ``const``. With ``watch`` an access out of bounds raises SanitizerError; ``trusted`` compiles without
        bounds checks and loop limits, and turns that off.
        """
        launch = _Launch(self, buffers, groups, constants, entry)
        return launch.run(watch and not trusted, trusted)

    def measure(
        self,
        buffers: Buffers,
        groups: Groups | None = None,
        *,
        constants: Constants | None = None,
        entry: str = "",
        trusted: bool = False,
        times: int = 10,
    ) -> Cost:
        """Run it ``times`` times and return what it costs, by timestamps."""
        return _Launch(self, buffers, groups, constants, entry).measure(trusted, times)

    def find_races(
        self,
        buffers: Buffers,
        groups: Groups | None = None,
        *,
        constants: Constants | None = None,
        sizes: Sequence[tuple[Constants, Groups | None]] = (),
        entry: str = "",
        orders: int = 4,
    ) -> None:
        """Run it with its workgroups in other orders, and raise SanitizerError unless the results are the same bit by bit.

        Also tried is each (constants, groups) of ``sizes``: other workgroup sizes that must not change the results.
        """
        launch = _Launch(self, buffers, groups, constants, entry)
        launch.find_races(orders)
        first = launch.run(False, False)
        for other, count in sizes:
            found = _Launch(self, buffers, count, {**(constants or {}), **other}, entry).run(False, False)
            launch.same(first, found, f"with {dict(other)}")

    def _layout(self, b: Binding) -> tuple[int, int, str]:
        if b.space == "handle":
            raise ShaderError(
                f"shader {self.source}:{b.line}: expected buffers, got {b.name}: {b.type}; textures and samplers are not run"
            )
        kind = "uniform" if b.space == "uniform" else "storage" if b.access == "read_write" else "read-only-storage"
        return b.group, b.binding, kind


class _Launch:
    """A shader with all that a dispatch of it needs."""

    def __init__(
        self, shader: Shader, buffers: Buffers, groups: Groups | None, constants: Constants | None, entry: str
    ) -> None:
        self.shader, self.stages = shader, _stages(shader.gpu)
        self.declared, self.values = shader._with(constants)
        self.entry = shader._entry(self.declared, entry)
        self.bindings = {b.name: b for b in self.declared.used(self.entry.name)}
        self.layout = [shader._layout(b) for b in self.bindings.values()]
        if unknown := sorted(buffers.keys() ^ self.bindings.keys()):
            raise ShaderError(
                f"shader {shader.source}: {self.entry.name} expected buffers {', '.join(self.bindings) or 'none'}, "
                f"got {', '.join(buffers) or 'none'}; see to {', '.join(unknown)}"
            )
        # Broken texts are to fail by the compiler's message before sizes and types are looked at.
        self.stage = shader._compile(self.declared.text, self.entry.name, self.values, self.layout)
        scalars = {n: self.declared.type_of(b.type).scalar for n, b in self.bindings.items()}
        self.held: dict[str, Held] = {}
        self.places: dict[tuple[int, int], Place] = {}
        self.nbytes = 0
        for name, value in buffers.items():
            b = self.bindings[name]
            if b.space == "uniform":
                place = uniform(self.stages, name, value, scalars[name])
            else:
                given = value if isinstance(value, Out) else array_of(name, value, scalars[name])
                if isinstance(given, Out) and b.access != "read_write":
                    raise ShaderError(
                        f"shader {shader.source}:{b.line}: {name} expected read_write for an Out, got {b.access}"
                    )
                self.held[name] = Held(self.stages, name, given)
                place = self.held[name].place
            self.places[b.group, b.binding] = place
            self.nbytes += place.nbytes
        self.groups = self._groups(groups, buffers, constants, entry)

    def _groups(
        self, groups: Groups | None, buffers: Buffers, constants: Constants | None, entry: str
    ) -> tuple[int, int, int]:
        if isinstance(groups, int):
            return groups, 1, 1
        if groups is not None:
            return (*groups, 1, 1)[:3]  # pyright: ignore[reportReturnType]
        name = next((n for n, v in buffers.items() if isinstance(v, Out)), None)
        if name is None:
            raise ShaderError(
                f"shader {self.shader.source}: expected an Out to derive the workgroups from; give groups=..."
            )
        out: Out = buffers[name]
        size = self.shader.workgroup_size(entry, constants)
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
        most = self.shader.gpu.limits[_LIMIT]
        if used >= most:
            raise DeviceLimitError(
                f"shader {self.shader.source}: {what} needs one storage buffer more than the {used} of {self.entry.name}, "
                f"and {_LIMIT} of this adapter is {most}; {way_out}"
            )
        group = max((g for g, *_ in self.layout), default=0)
        return group, 1 + max((b.binding for b in self.declared.bindings if b.group == group), default=-1)

    def run(self, watch: bool, trusted: bool) -> Any:
        if watch:
            self._run_watched()
        else:
            stage = self.stage
            if trusted:
                stage = self.shader._compile(self.declared.text, self.entry.name, self.values, self.layout, True)
            self.stages.run(stage, self.places, self.groups)
        results = self._results()
        if self.shader.costs is not None:
            seconds = statistics.median(self.stages.run(self.stage, self.places, self.groups, 1))
            self.shader.costs.append(Cost(self.shader.source, seconds, self.nbytes))
        return results

    def _results(self) -> Any:
        for held in self.held.values():
            if held.out is None and self.bindings[held.name].access == "read":
                held.read()
        found = [h.result() for h in self.held.values() if h.out is not None]
        return found[0] if len(found) == 1 else tuple(found)

    def _run_watched(self) -> None:
        group, binding = self._spare("the check of bounds", "pass watch=False")
        text = _watched(self.declared.text, group, binding)
        layout = [*self.layout, (group, binding, "storage")]
        stage = self.shader._compile(text.code, self.entry.name, self.values, layout)
        lease, place = self.stages.storage(np.zeros(REPORT_BYTES // 4, np.uint32), 0, REPORT_BYTES)
        self.stages.run(stage, {**self.places, (group, binding): place}, self.groups)
        found = np.frombuffer(self.shader.gpu.stream.read(lease, 0, REPORT_BYTES), np.uint32)
        if found[0]:
            raise SanitizerError(report(f"shader {self.shader.source}", text.sites, found))

    def measure(self, trusted: bool, times: int) -> Cost:
        stage = self.shader._compile(self.declared.text, self.entry.name, self.values, self.layout, trusted)
        self.stages.run(stage, self.places, self.groups)
        seconds = self.stages.run(stage, self.places, self.groups, times)
        return Cost(self.shader.source, statistics.median(seconds), self.nbytes)

    def find_races(self, orders: int) -> None:
        group, binding = self._spare("the search for races", "use an adapter with more")
        text = shuffled(self.declared.text, group, binding, self.declared)
        stage = self.shader._compile(
            text, self.entry.name, self.values, [*self.layout, (group, binding, "read-only-storage")]
        )
        count = int(np.prod(self.groups))
        rng = np.random.default_rng(count)
        first: list[np.ndarray] = []
        for n in range(orders + 1):
            order = np.arange(count) if n == 0 else np.arange(count)[::-1] if n == 1 else rng.permutation(count)
            words = np.concatenate([[n % 2], order]).astype(np.uint32)
            _, place = self.stages.storage(words, 0, words.nbytes)
            for held in self.held.values():
                held.reset()
            self.stages.run(stage, {**self.places, (group, binding): place}, self.groups)
            found = [h.read().view(np.uint32) for h in self.held.values()]
            if n:
                what = "backwards" if n == 1 else f"in the order of permutation {n - 1}"
                for held, before, now in zip(self.held.values(), first, found, strict=True):
                    self._differ(held.name, before, now, f"with workgroups {what}")
            else:
                first = found
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
                f"shader {self.shader.source}: {self.entry.name}: expected the same results in any order, got {wrong.size} "
                f"{'words' if before.itemsize == 4 else 'bytes'} of {name} that differ {what}, the first at word {at}; "
                "do two workgroups write there, or does one read what another writes?"
            )


def _literal(value: Any) -> str:
    """Return a constant as WGSL: NumPy's scalars have a type, Python's numbers take the one that is asked for."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    suffix = {"u": "u", "i": "i", "f": "f"}[value.dtype.kind] if isinstance(value, np.generic) else ""
    if isinstance(value, float | np.floating):
        return f"{float(value)!r}{suffix}"
    return f"{int(value)}{suffix}"
