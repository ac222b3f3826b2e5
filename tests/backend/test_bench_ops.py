"""``wgpu-nn bench matmul`` and its like: what is printed and saved, and that a wrong kernel is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wgpu_nn import Device
from wgpu_nn.bench import ops, ops_ours, roofline
from wgpu_nn.bench.engine import Label
from wgpu_nn.bench.work import Item
from wgpu_nn.cli import main

SHAPES = {
    "matmul": "33x16x20,2x5x6x7", "conv": "2x3x9x8x4x3x1,2x3x6x5x3x3x1x3", "map": "1001", "reduce": "65x33", "rows": "9x70",
    "attention": "1x2x9x8", "launch": "5x7", "memory": "33", "order": "303",
}  # fmt: skip


@pytest.fixture(scope="module")
def roof() -> roofline.Roofline:
    """Found once, as each run would find it again."""
    return roofline.measure(Device())


@pytest.fixture(autouse=True)
def _one_roof(roof: roofline.Roofline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "measure", lambda device: roof)
    monkeypatch.setattr("wgpu_nn.bench.facts.BUSY", 0.001)
    monkeypatch.setattr("wgpu_nn.bench.timing.SECONDS", 0.002)


def test_the_roofline_is_measured(roof: roofline.Roofline) -> None:
    assert roof.bandwidth > 1e6 and roof.flops > 1e6
    peak, bandwidth = roof.shares(roof.flops, 2 * roof.bandwidth, 2.0)
    assert (peak, bandwidth) == (0.5, 1.0)


@pytest.mark.parametrize("name", SHAPES)
def test_each_benchmark_reports_ours_and_a_peer(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, picture = tmp_path / "x.json", tmp_path / "x.png"
    lines: list[str] = []
    monkeypatch.setattr("wgpu_nn.bench.report.show", lambda text, bold=0: lines.extend(text))
    flags = ["--rounds", "2", "--against", "numpy", "--json", str(path), "--plot", str(picture)]
    assert main(["bench", name, "--shape", SHAPES[name], *flags]) == 0
    out, saved = "\n".join(lines), json.loads(path.read_text())
    assert saved["benchmark"] == name and saved["roofline"]["flops_per_s"] > 0 and "FAILED" not in out
    assert {"adapter", "versions", "date", "machine", "peers"} <= saved["environment"].keys()
    assert max(map(len, lines)) <= 128 and "measured: " in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    for item in saved["items"]:
        assert item["title"] in lines
        ours, *others = item["rows"]
        assert ours["ok"] and ours["error"] <= item["tolerance"] and len(ours["rounds"]) == 2
        assert ours["compiled"] == ours["allocated"] == 0, "in steady state"
        assert all(row["ok"] for row in others)
        for row in others:
            assert row["ours_times_faster"] == pytest.approx(row["wall_us"] / ours["wall_us"])
        if name == "launch":
            assert [row["key"] for row in item["rows"]] == ["captured", "eager", "numpy"]
            assert (ours["launches"], ours["submits"]) == (5, 1) and others[0]["launches"] == 5
            assert ours["us_per_launch"] == pytest.approx(ours["wall_us"] / 5)
        elif name != "memory":
            assert ours["bytes_per_s"] == pytest.approx(item["bytes"] / ours["wall_us"] * 1e6)
            assert ours["share_of_bandwidth"] > 0 and bool(ours["share_of_peak"]) == bool(item["flops"])
            eager = item["kind"] == "nonzero"
            assert ours["key"] == ("eager" if eager else "captured") and (eager or ours["submits"] == 1)
    assert (f"  {'numpy'}" in out) == any(len(item["rows"]) > 1 for item in saved["items"])


def test_the_short_table_has_a_line_an_item(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "matmul", "--shape", "8x8x8,4x4x4", "--rounds", "1", "--against", "numpy", "--table"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| work ") and lines[0].endswith("| vs numpy |") and set(lines[1]) <= set("|-:")
    assert lines[2].startswith("| matmul [8, 8] @ [8, 8] |") and lines[3].startswith("| matmul [4, 4] @ [4, 4] |")
    assert len({len(line) for line in lines[:4]}) == 1


def test_a_wrong_kernel_is_shown_and_makes_the_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = ops_ours.FUNCTIONS["matmul"]
    monkeypatch.setitem(ops_ours.FUNCTIONS, "matmul", lambda item, a, b: right(item, a, b) + 0.01)
    for flags in ([], ["--table"]):
        assert main(["bench", "matmul", "--shape", "16x16x16", "--rounds", "1", *flags]) == 1
        assert "FAILED" in capsys.readouterr().out


def test_work_that_does_not_fit_is_a_row_that_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gpu_device: Device
) -> None:
    pool = gpu_device.gpu.pool
    monkeypatch.setattr(pool, "largest", 1 << 10)
    assert main(["bench", "map", "--shape", "1024,64", "--rounds", "1"]) == 1
    out = capsys.readouterr().out
    assert out.count("not available: buffer: expected at most 1024 bytes") == 2 and out.count("ok") >= 2


def test_repeated_launches_share_one_submit(gpu_device: Device) -> None:
    item = Item("scale", (1000,))
    ours = ops_ours.Ours(Label("x", "x", item.key), gpu_device, item)
    ours.outcome()
    gpu_device.sync()
    before = gpu_device.gpu.counts.copy()
    ours.round(20)
    since = gpu_device.gpu.counts.since(before)
    assert (since.launches, since.submits) == (3 + 20, 3 + 1)
    ours.release()


def test_bad_arguments_are_one_line_and_nothing_is_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for flags, status, message in (
        (["--device", "numpy"], 1, "expected a wgpu device"),
        (["--json", str(tmp_path / "none" / "x.json")], 2, "for --json"),
        (["--plot", str(tmp_path / "none" / "x.png")], 2, "for --plot"),
    ):
        assert main(["bench", "map", *flags]) == status
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and message in err
    for flags in (["--against", "jax"], ["--shape", "3xy"], ["--rounds", "0"]):
        with pytest.raises(SystemExit, match="2"):
            main(["bench", "matmul", *flags])
        assert flags[0] in capsys.readouterr().err


def test_an_absent_peer_is_a_row_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    absent: Any = ops.Peer("torch", ("no_such_package",), "pip install torch", "none")
    monkeypatch.setitem(ops.PEERS, "torch", absent)
    path = tmp_path / "x.json"
    assert main(["bench", "map", "--shape", "64", "--rounds", "1", "--against", "torch", "--json", str(path)]) == 0
    reason = "needs no_such_package, not installed; pip install torch"
    assert f"not available: {reason}" in capsys.readouterr().out
    assert json.loads(path.read_text())["absent"] == {"torch": reason}
