"""Says where a text compiles: on which adapters, by which compiler, and what it needs beyond the standard's defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wgpu_nn.errors import ShaderError
from wgpu_nn.gpu import PORTABLE, Adapter, refusal
from wgpu_nn.testing import tint
from wgpu_nn.testing.launch import read_text
from wgpu_nn.wgsl import Declarations

# By wgpu's names; what the standard has no name for works outside of browsers only.
FEATURES = {
    "shader-f16": "shader-f16",
    "subgroup": "subgroups",
    "immediates": "",
    "shader-float32-atomic": "",
    "shader-int64": "",
    "shader-f64": "",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one compiler says. ``needs`` names features and limits beyond the defaults; ``error`` is empty where it compiles."""

    where: str
    needs: tuple[str, ...] = ()
    error: str = ""

    @property
    def portable(self) -> bool:
        """Whether every WebGPU device takes it."""
        return not self.needs and not self.error


def check_on(adapter: Adapter, source: str, code: str) -> Verdict:
    """Compile with naga on an adapter: with the limits of every WebGPU device and no feature, then with more of both."""
    declared = read_text(code)
    # Pipelines of entry points whose overrides have no default cannot be made here; their text is compiled all the same.
    complete = all(o.default for o in declared.overrides)
    entries = [e.name for e in declared.entry_points if e.stage == "compute" and complete]
    first = refusal(adapter, source, code, entries)
    if not first:
        return Verdict(str(adapter), beyond(declared))
    needed = frozenset(f for f in FEATURES if f in adapter.features)
    standard = not refusal(adapter, source, code, entries, needed)
    if not standard and refusal(adapter, source, code, entries, needed, False):
        return Verdict(str(adapter), error=first)
    for feature in FEATURES:
        if feature in needed and not refusal(adapter, source, code, entries, needed - {feature}, standard):
            needed -= {feature}
    names = [FEATURES[f] or f"{f} (not in the standard)" for f in FEATURES if f in needed]
    limits = [] if standard else [f"more than the default limits: {_reason(first)}"]
    return Verdict(str(adapter), (*names, *limits, *beyond(declared)))


def beyond(declared: Declarations) -> tuple[str, ...]:
    """Return which default limits the workgroups of a text exceed; compilers do not look where overrides have a say."""
    found: list[str] = []
    for e in declared.entry_points:
        sizes = [declared.value(n) or 1 for n in e.workgroup_size] if e.stage == "compute" else [1]
        for axis, size in zip("xyz", sizes):
            if size > (most := PORTABLE[f"max-compute-workgroup-size-{axis}"]):
                found.append(f"workgroups of {size} along {axis}, above {most}")
        if math.prod(sizes) > (most := PORTABLE["max-compute-invocations-per-workgroup"]):
            found.append(f"workgroups of {math.prod(sizes)}, above {most}")
    memory = sum(declared.nbytes(v.type) or 0 for v in declared.variables.values() if v.space == "workgroup")
    if memory > (most := PORTABLE["max-compute-workgroup-storage-size"]):
        found.append(f"{memory} bytes of workgroup memory, above {most}")
    return tuple(dict.fromkeys(found))


def check_with_tint(source: str, code: str) -> Verdict:
    """Compile with Tint."""
    # Tint wants an extension named that naga knows without a name, and refuses to be told.
    named = code if "subgroup" not in code or "enable subgroups" in code else f"enable subgroups; {code}"
    try:
        tint.compile_with_tint(source, named)
    except ShaderError as error:
        return Verdict("Tint", error=str(error))
    return Verdict("Tint")


def _reason(error: str) -> str:
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return lines[-1] if lines else error
