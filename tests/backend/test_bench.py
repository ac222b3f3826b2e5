"""``wgpu-nn bench step``: its table and JSON, its exit codes, and the counts that the captured step has to keep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wgpu_nn import Device
from wgpu_nn.bench import step, step_ours
from wgpu_nn.bench.engine import Facts, Label
from wgpu_nn.bench.peers import Peer
from wgpu_nn.bench.timing import Round
from wgpu_nn.cli import main

SMALL = ["bench", "step", "--batch", "4", "--rounds", "2", "--steps", "2"]
TOGETHER = (f"captured, {step_ours.TOGETHER} a submit", f"inference, {step_ours.TOGETHER} a submit")
TITLES = ("captured", TOGETHER[0], "captured, unfused", "eager", "captured inference", TOGETHER[1])
FIRST = {"import_s": 0.1, "device_s": 0.2, "step_s": 0.3, "pipelines": 1}


class Report:
    """What one run printed and saved."""

    def __init__(self, code: int, out: str, saved: dict[str, Any]) -> None:
        self.code, self.out, self.saved = code, out, saved


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A small run, against a peer that is not installed."""
    path = tmp_path_factory.mktemp("bench") / "step.json"
    absent = Peer("torch", ("no_such_package",), "pip install torch", "none")
    with pytest.MonkeyPatch.context() as patch, pytest.MonkeyPatch.context() as output:
        patch.setitem(step.PEERS, "torch", absent)
        lines: list[str] = []
        output.setattr("wgpu_nn.bench.report.show", lambda text, bold=0: lines.extend(text))
        code = main([*SMALL, "--against", "torch", "--launches", "--json", str(path)])
    return Report(code, "\n".join(lines), json.loads(path.read_text()))


def test_a_run_succeeds_and_its_table_has_a_row_for_each_engine(found: Report) -> None:
    assert found.code == 0 and "FAILED" not in found.out
    rows = [line for line in found.out.splitlines() if "  ok" in line]
    assert [row.split("  ")[0] for row in rows] == list(TITLES)
    assert max(map(len, found.out.splitlines())) <= 110


def test_a_missing_peer_is_a_row_that_says_what_to_install(found: Report) -> None:
    wanted = "torch not available: needs no_such_package, not installed; pip install torch"
    assert wanted in [" ".join(line.split()) for line in found.out.splitlines()]
    assert found.saved["absent"] == {"torch": "needs no_such_package, not installed; pip install torch"}


def test_json_has_the_environment_the_medians_and_the_raw_rounds(found: Report) -> None:
    saved = found.saved
    assert {"adapter", "versions", "date", "machine", "peers"} <= saved["environment"].keys()
    assert saved["environment"]["adapter"]["driver"] is not None
    assert saved["settings"]["batch"] == 4 and saved["numerics"]["tolerance"] == 1e-4
    assert 0 < saved["first_call"]["again"]["import_s"] < saved["first_call"]["again"]["step_s"]
    assert [row["title"] for row in saved["rows"]] == list(TITLES)
    for row in saved["rows"]:
        assert row["ok"] and row["difference"] <= 1e-4
        assert [r["steps"] for r in row["rounds"]] == [2, 2]
        walls = sorted(r["wall_us"] for r in row["rounds"])
        assert walls[0] <= row["wall_us"] <= walls[1] and row["host_us"] > 0
        assert row["images_per_s"] == pytest.approx(4e6 / row["wall_us"])


def test_counts_of_the_report_keep_the_contract(found: Report, step_launches: int) -> None:
    rows = {row["key"]: row for row in found.saved["rows"]}
    for key in ("captured", "captured-unfused", "inference"):
        assert (rows[key]["submits"], rows[key]["compiled"], rows[key]["allocated"]) == (1, 0, 0), key
    assert (
        rows["captured"]["launches"]
        <= step_launches
        < rows["captured-unfused"]["launches"]
        <= rows["eager"]["launches"]
    )
    assert rows["eager"]["compiled"] == rows["eager"]["allocated"] == 0


def test_launches_are_listed_with_their_share_of_the_gpu_time(found: Report) -> None:
    captured = found.saved["rows"][0]
    if captured["device_us"] is None:
        assert "no timestamps" in found.out
        return
    assert len(captured["launch_us"]) == captured["launches"]
    assert captured["device_us"] == pytest.approx(sum(us for _, us in captured["launch_us"]))
    assert found.out.count("%") == captured["launches"]


def test_the_spec_pages_batch_keeps_the_contract(gpu_device: Device, step_launches: int) -> None:
    captured = step_ours.engines(gpu_device.autodiff(), 64)[0]
    facts = captured.facts()
    assert facts.launches is not None and facts.launches <= step_launches
    assert (facts.submits, facts.compiled, facts.allocated) == (1, 0, 0)


class Wrong:
    """An engine whose losses are not those of NumPy."""

    label = Label("wrong", "wrong engine", "train")

    def outcome(self) -> list[float]:
        return [3.0]

    def facts(self) -> Facts:
        return Facts()

    def round(self, steps: int) -> Round:
        return Round(steps, 1.0, 1.0)


def test_wrong_losses_are_shown_and_make_the_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step_ours, "engines", lambda device, batch: [Wrong()])
    monkeypatch.setattr(step_ours, "first_call", lambda name, batch: FIRST)
    assert main(SMALL) == 1
    assert "FAILED" in capsys.readouterr().out


def test_bad_arguments_are_one_line_and_nothing_is_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for flags, status, message in (
        (["--device", "numpy"], 1, "expected a wgpu device"),
        (["--json", str(tmp_path / "none" / "x.json")], 2, "expected a folder"),
    ):
        assert main([*SMALL, *flags]) == status
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and message in err
    for flags in (["--against", "jax"], ["--batch", "0"], ["--rounds", "many"]):
        with pytest.raises(SystemExit, match="2"):
            main(["bench", "step", *flags])
        assert flags[0] in capsys.readouterr().err
