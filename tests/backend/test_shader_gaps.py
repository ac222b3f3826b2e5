"""No body, no variant that planners choose, no kind of elements and no function of the library is without a test of its own.

It looks at what the tests before it have run, and is moved behind them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests import shader_report
from tests.conftest import left_out
from tests.shader_report import RUNS, Run, Variant, gaps
from wgpu_nn import switches

HERE = Path(__file__).parent
BENCHES = {p for p in HERE.glob("test_*.py") if "\nfrom tests.shader_bench import" in p.read_text(encoding="utf-8")}


def test_all_that_planners_choose_is_run_alone(request: pytest.FixtureRequest) -> None:
    session = request.session
    whole = {item.path for item in session.items} >= BENCHES and not BENCHES & session.config.stash[left_out]
    if not whole or any("::" in arg for arg in session.config.args):
        pytest.skip("some tests of WGSL bodies were left out: python -m pytest tests/backend")
    if switches.limits.value != "adapter":
        pytest.skip("some bodies need more workgroup memory than lowered limits have")
    assert not (found := list(gaps(RUNS))), "\n".join(found)


def test_what_is_missing_is_named() -> None:
    full = [
        Run(
            "a test",
            Variant(file, switches, seen_counts(file), frozenset(seen.kinds)),
            frozenset(shader_report.library()),
            2,
        )
        for file, seen in shader_report.planned().items()
        for switches in seen.switches
    ]
    assert not list(gaps(full))
    counted = Counter(line.partition(":")[0] for line in gaps([]))
    assert counted["pow_of"] == 0 and counted["lib"] == len(shader_report.library()) and counted["map.wgsl"] == 1
    softmax = "softmax.wgsl"
    without = [r for r in full if r.variant.file != softmax or ("LOG", "true") not in r.variant.switches]
    assert list(gaps(without)) == [f"{softmax}: not run with LOG true"]
    assert list(gaps([r._replace(sides=1) if r.variant.file == softmax else r for r in full])) == [
        f"{softmax}: not run on several rows of workgroups"
    ]
    lost = {
        "kinds": frozenset[tuple[str, str]](),
        "counts": frozenset[tuple[str, str]](),
        "functions": frozenset[str](),
    }
    less = [Run(r.test, Variant(*r.variant[:2], lost["counts"], lost["kinds"]), r.functions, 2) for r in full]  # pyright: ignore[reportArgumentType]
    assert {"scan.wgsl: not run with out of f32", "reduce_rows.wgsl: not run with LANES 1"} <= set(gaps(less))


def seen_counts(file: str) -> frozenset[tuple[str, str]]:
    return frozenset(shader_report.planned()[file].counts)
