"""A WGSL text under test: what it declares, and one call that runs it on NumPy arrays, watched by default."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wgpu_nn.errors import ShaderError
from wgpu_nn.gpu import Gpu
from wgpu_nn.testing.launch import Cost, Groups, Launch, compile_stage, layout_of, read_text, watch_text
from wgpu_nn.wgsl import Binding, Declarations, EntryPoint, Override

Buffers = Mapping[str, Any]
Constants = Mapping[str, Any]


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
        return read_text(self.text)

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
        return watch_text(self.text, 0, 0).unseen

    def _entry(self, declared: Declarations, entry: str) -> EntryPoint:
        found = {e.name: e for e in declared.entry_points if e.stage == "compute"}
        if entry in found or (not entry and len(found) == 1):
            return found[entry or next(iter(found))]
        if not found:
            compile_stage(self.gpu, self.source, declared.text, "main", {}, ())  # if the text is broken, that is said
        raise ShaderError(
            f"shader {self.source}: expected {'a compute entry point' if not entry else f'an entry point {entry}'}, "
            f"got {', '.join(found) or 'none'}; name one by entry=..."
        )

    def _with(self, constants: Constants | None) -> tuple[Declarations, dict[str, float]]:
        """Return the text with constants that it does not declare appended, and the values of its overrides."""
        constants = constants or {}
        known = self.overrides
        values = {n: float(v) for n, v in constants.items() if n in known}
        lines = [f"const {name} = {_literal(v)};" for name, v in constants.items() if name not in known]
        return (read_text("\n".join([self.text, *lines, ""])) if lines else self.declared), values

    # --- compilation -----------------------------------------------------------------------------------------------
    def compile(self, *, entry: str = "", constants: Constants | None = None) -> None:
        """Compile it; ShaderError has the file, the line and a caret."""
        declared, values = self._with(constants)
        found = self._entry(declared, entry)
        layout = [layout_of(self.source, b) for b in declared.used(found.name)]
        keyed = {_key(self.overrides[name]): v for name, v in values.items()}
        compile_stage(self.gpu, self.source, declared.text, found.name, keyed, layout)

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
        launch = self._launch(buffers, groups, constants, entry)
        found = launch.run(watch and not trusted, trusted)
        if self.costs is not None and launch.timed:
            self.costs.append(launch.measure(trusted, 1))
        return found

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
        return self._launch(buffers, groups, constants, entry).measure(trusted, times)

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
        launch = self._launch(buffers, groups, constants, entry)
        launch.find_races(orders)
        first = launch.run(False, False)
        for other, count in sizes:
            found = self._launch(buffers, count, {**(constants or {}), **other}, entry).run(False, False)
            launch.same(first, found, f"with {dict(other)}")

    def _launch(self, buffers: Buffers, groups: Groups | None, constants: Constants | None, entry: str) -> Launch:
        declared, values = self._with(constants)
        found = self._entry(declared, entry)
        if groups is None:
            size = self.workgroup_size(found.name, constants)
        else:
            size = (1, 1, 1)
        keyed = {_key(self.overrides[name]): v for name, v in values.items()}
        return Launch(self.gpu, self.source, declared, found, keyed, size, buffers, groups)


def _key(override: Override) -> str:
    return override.name if override.id is None else str(override.id)


def _literal(value: Any) -> str:
    """Return a constant as WGSL: NumPy's scalars have a type, Python's numbers take the one that is asked for."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    suffix = {"u": "u", "i": "i", "f": "f"}[value.dtype.kind] if isinstance(value, np.generic) else ""
    if isinstance(value, float | np.floating):
        return f"{float(value)!r}{suffix}"
    return f"{int(value)}{suffix}"
