"""Elementary functions against double precision: over all exponents of f32, each within the bound that is documented."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from wgpu_nn import Device
from wgpu_nn.bench.accuracy import FUNCTIONS, Function, errors, measure, title
from wgpu_nn.cli.main import main


@pytest.mark.unwatched("asks functions for NaN and infinity", "nan", "inf")
@pytest.mark.parametrize("f", FUNCTIONS, ids=title)
def test_a_function_is_within_its_bound(f: Function, gpu_device: Device, trust: str) -> None:
    found = measure(f, gpu_device, 24)
    assert found.ulp <= f.bound, found


@pytest.mark.parametrize("f", FUNCTIONS, ids=title)
def test_numpy_is_within_the_same_bounds(f: Function, cpu: Device) -> None:
    found = measure(f, cpu, 24)
    assert found.ulp <= f.bound, found


def test_errors_are_counted_in_units_of_what_is_wanted() -> None:
    want = np.array([1.0, 1.0, -8.0, 1e-40, 1e300, np.inf, np.nan, np.nan, 3e38, 2.0])
    got = np.array([1 + 2**-23, 1 - 2**-23, -8 - 2**-19, 0, np.inf, np.inf, np.nan, 1, np.inf, np.nan], np.float32)
    found = errors(got, want)
    assert found[:7].tolist() == [1, 1, 2, 0, 0, 0, 0]
    assert found[7] == np.inf and found[8] > 1e5 and found[9] == np.inf


@pytest.mark.unwatched("asks functions for NaN and infinity", "nan", "inf")
def test_the_command_says_what_it_found_and_fails_beyond_a_bound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from wgpu_nn.bench import accuracy

    few = tuple(f for f in FUNCTIONS if f.op in ("exp", "pow"))
    monkeypatch.setattr(accuracy, "FUNCTIONS", few)
    saved = tmp_path / "found.json"
    assert main(["bench", "accuracy", "--samples", "4", "--json", str(saved)]) == 0
    text = capsys.readouterr().out
    assert "pow, |y| <= 3" in text and "FAILED" not in text
    assert [row["function"] for row in json.loads(saved.read_text())["functions"]] == [title(f) for f in few]
    monkeypatch.setattr(accuracy, "FUNCTIONS", (Function("exp", np.exp, 0.25),))
    assert main(["bench", "accuracy", "--samples", "4", "--table"]) == 1
    assert "FAILED" in capsys.readouterr().out
