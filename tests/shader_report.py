"""Which variants of the WGSL bodies tests run alone, beside those that planners choose; knows texts, and launches nothing.

``python -m pytest --shader-report`` ends with the table. A variant is a body with the values of its constants, as far as a
text can tell them apart: true and false, and 0, 1 or more.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.plans import plan_all
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.source import body, folder, library, used

_CONSTANT = re.compile(r"(?:^\s*|(?<=; ))const (\w+) = (true|false|\d+)u?;", re.MULTILINE)
_ALIAS = re.compile(r"(?:^\s*|(?<=; ))alias (\w+) = (\w+);", re.MULTILINE)
_BUFFER = re.compile(r"var<storage, \w+> (\w+): array<([^;]+)>;")
_KIND = re.compile(r"f32|i32|u32|f16|vec[234]([fiuh])")
_LOCAL = re.compile(r"\b(?:let|var) (\w+)")
_LETTERS = {"f": "f32", "i": "i32", "u": "u32", "h": "f16"}
Trait = tuple[str, str]  # a constant and what is distinguished of its value


class Variant(NamedTuple):
    """What tells kernels of one body apart."""

    file: str
    switches: frozenset[Trait]  # constants that are true or false
    counts: frozenset[Trait]  # constants that are 0, 1 or more
    kinds: frozenset[
        Trait
    ]  # of the elements of buffers and of the types that the body names; the others are its header's


@dataclass
class Seen:
    """The variants of one body, put together."""

    switches: set[frozenset[Trait]] = field(default_factory=set)
    counts: set[Trait] = field(default_factory=set)
    kinds: set[Trait] = field(default_factory=set)

    def add(self, variant: Variant) -> None:
        self.switches.add(variant.switches)
        self.counts |= variant.counts
        self.kinds |= variant.kinds


class Run(NamedTuple):
    """A body that a test has run alone."""

    test: str
    variant: Variant
    functions: frozenset[str]  # of the library
    sides: int = 1  # of its grid of workgroups, the shorter one; all of these were needed


RUNS: list[Run] = []


@functools.cache
def _named(text: str) -> frozenset[str]:
    code = re.sub(r"//[^\n]*", "", text)
    return frozenset(re.findall(r"\w+", code)) - frozenset(_LOCAL.findall(code))


def variant(kernel: Kernel) -> Variant:
    """Return what a kernel is, of all that its body can be."""
    written, _, header = kernel.code.partition("\n// --- header: ")
    names = _named(written).union(*(_named(library()[f]) for f in used(written)))
    constants = {name: value for name, value in _CONSTANT.findall(header) if name in names}
    aliases = dict(_ALIAS.findall(header))
    kinds: set[Trait] = set()
    for name, element in _BUFFER.findall(header):
        if name in names:
            text = re.sub(r"\w+", lambda m: aliases.get(m[0], m[0]), element)
            kinds |= {(name, _LETTERS.get(m[1], m[0])) for m in _KIND.finditer(text)}
    kinds |= {(name, aliases[name]) for name in aliases.keys() & names if _KIND.fullmatch(aliases[name])}
    return Variant(
        kernel.source,
        frozenset((n, v) for n, v in constants.items() if not v.isdigit()),
        frozenset((n, v if int(v) < 2 else "more") for n, v in constants.items() if v.isdigit()),
        frozenset(kinds),
    )


def record(test: str, kernel: Kernel, sides: int) -> None:
    """Note that a test has run a kernel's body alone, on a grid whose shorter side has so many workgroups."""
    RUNS.append(Run(test, variant(kernel), frozenset(used(kernel.code)), sides))


def together(variants: Iterable[Variant]) -> dict[str, Seen]:
    """Return what there is of each body."""
    out: dict[str, Seen] = defaultdict(Seen)
    for v in variants:
        out[v.file].add(v)
    return out


@functools.cache
def planned() -> dict[str, Seen]:
    """Return what planners choose for the case table."""
    kernels = {k for plans in plan_all() for k in (*(k for k, _, _ in plans.launches), *plans.constant)}
    return together(variant(k) for k in kernels)


def gaps(runs: Iterable[Run]) -> Iterator[str]:
    """Yield a line for each body, variant, kind and library function that is not run alone."""
    runs = list(runs)
    tested = together(r.variant for r in runs)
    in_rows = {r.variant.file for r in runs if r.sides > 1}
    for path in sorted(folder().glob("*.wgsl")):
        want, got = planned()[path.name], tested.get(path.name)
        if got is None:
            yield f"{path.name}: no test runs it alone"
            continue
        if path.name not in in_rows and "num_workgroups" in body(path.stem):
            yield f"{path.name}: not run on several rows of workgroups"
        for switches in want.switches - got.switches:
            yield f"{path.name}: not run with {_text(switches)}"
        for name, value in sorted(want.counts - got.counts):
            yield f"{path.name}: not run with {name} {value}"
        for name, kind in sorted(want.kinds - got.kinds):
            yield f"{path.name}: not run with {name} of {kind}"
    functions = frozenset[str]().union(*(r.functions for r in runs))
    for name in sorted(library().keys() - functions):
        yield f"lib: no body that a test runs alone calls {name}"


def _text(traits: Iterable[Trait]) -> str:
    return ", ".join(f"{n} {v}" for n, v in sorted(traits))


def table(runs: Iterable[Run]) -> Iterator[str]:
    """Yield the report: a line for each body, and below it its variants, each beside the number of runs in tests."""
    by_file: dict[str, list[Run]] = defaultdict(list)
    for r in runs:
        by_file[r.variant.file].append(r)
    for file in sorted(by_file.keys() | planned().keys()):
        found = by_file[file]
        tests = sorted({r.test.partition("[")[0].rpartition("/")[2] for r in found})
        kinds = sorted({kind for r in found for _, kind in r.variant.kinds})
        yield f"{file}: {len(found)} runs; {', '.join(kinds) or 'no kinds'}; {', '.join(tests) or 'no test'}"
        want = planned().get(file, Seen())
        got = together(r.variant for r in found).get(file, Seen())
        for switches in sorted(want.switches | got.switches, key=_text):
            count = sum(r.variant.switches == switches for r in found)
            chosen = "" if switches in want.switches else "  (no planner's choice of the case table)"
            if switches:
                yield f"    {_text(switches):<60} {count:>5}{chosen}"
        values: dict[str, list[str]] = defaultdict(list)
        for name, value in sorted(want.counts | got.counts):
            count = sum((name, value) in r.variant.counts for r in found)
            values[name].append(f"{value}: {count}")
        yield from (f"    {name:<20} {', '.join(row)}" for name, row in values.items())
