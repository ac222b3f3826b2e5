"""``wgpu-nn profile``: every launch of a script is counted and timed, and the trace is one that viewers open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wgpu_nn import Device, tensor
from wgpu_nn.bench import profile, roofline
from wgpu_nn.cli import main
from wgpu_nn.errors import DeviceError
from wgpu_nn.gpu import Launched, Profile, Submit
from wgpu_nn.kernels.source import sizes
from wgpu_nn.train import capture

SCRIPT = """
import sys
import numpy as np
import beside
from wgpu_nn import Device, tensor
from wgpu_nn.train import capture

device = Device()
x, y = (tensor(np.ones(shape, np.float32), device) for shape in ((5, 6), (6, 7)))
for _ in range(70):
    out = x @ y
step = capture(lambda a, b: (a @ b).relu())
for _ in range(3):
    step(x, y)
print("sum", float(out.sum()), sys.argv[1:], __name__, beside.VALUE)
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(roofline, "measure", lambda device: roofline.Roofline(1e9, 1e9, 4096))
    (tmp_path / "beside.py").write_text("VALUE = 'found'\n")
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.usefixtures("timestamps")
def test_a_script_is_run_and_its_launches_are_shown_and_saved(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, trace = tmp_path / "x.json", tmp_path / "trace.json"
    assert main(["profile", "--json", str(table), "--trace", str(trace), str(script), "--flag", "1"]) == 0
    out = capsys.readouterr().out
    assert "sum 210.0 ['--flag', '1'] __main__ found" in out and "matmul" in out and "GPU " in out
    saved = json.loads(table.read_text())
    assert saved["launches"] == sum(k["launches"] for k in saved["kernels"]) >= 74
    assert sum(k["launches"] for k in saved["kernels"] if "matmul" in k["kernel"]) == 73, "eager and captured ones"
    assert sum(k["share"] for k in saved["kernels"]) == pytest.approx(1.0)
    assert [k["total_us"] for k in saved["kernels"]] == sorted((k["total_us"] for k in saved["kernels"]), reverse=True)
    matmul = next(k for k in saved["kernels"] if k["launches"] == 70)
    assert matmul["sizes"] == "rows=5 columns=7 inner=6" or "per_slice" in matmul["sizes"]
    assert matmul["bytes"] == 70 * 4 * (30 + 42 + 35)
    assert matmul["bytes_per_s"] == pytest.approx(matmul["bytes"] / matmul["total_us"] * 1e6)
    assert matmul["share_of_bandwidth"] == pytest.approx(matmul["bytes_per_s"] / 1e9)
    valid(json.loads(trace.read_text()), saved["launches"], saved["submits"])


def valid(trace: dict[str, Any], launches: int, submits: int) -> None:
    """Chrome's trace event format: complete events with numbers, and names for the tracks."""
    events = trace["traceEvents"]
    named = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"}
    assert named == {1: "host: submits", 2: "GPU: kernels"}
    spans = [e for e in events if e["ph"] == "X"]
    assert len(spans) + 3 == len(events)
    for e in spans:
        assert isinstance(e["name"], str) and e["ts"] >= 0 and e["dur"] >= 0 and e["pid"] == 1
    hosts, kernels = ([e for e in spans if e["tid"] == track] for track in (1, 2))
    assert (len(kernels), len(hosts)) == (launches, submits)
    assert sum(e["args"]["launches"] for e in hosts) == launches
    for e in kernels:
        # The two clocks are set by the first kernel, and drift: 0.05 us were seen on an H100.
        assert e["ts"] >= hosts[e["args"]["submit"]]["ts"] - 10, "no kernel starts before its submit"
        assert e["args"]["file"].endswith((".wgsl", ".py")) and len(e["args"]["workgroups"]) == 3
    assert any("rows" in e["args"] for e in kernels)


@pytest.mark.unwatched("a profile takes the place of the watch, and gives it back")
@pytest.mark.usefixtures("timestamps")
def test_a_profiled_run_gives_the_same_results_and_counts(gpu_device: Device) -> None:
    x = tensor(np.arange(60, dtype=np.float32).reshape(5, 12), gpu_device)
    work = lambda: [(x * i + 1.0).sum(1).numpy() for i in range(3)]
    step = capture(lambda a: (a * 2.0).softmax(1))
    gpu = gpu_device.gpu
    before = gpu.counts.copy()
    plain = [*work(), step(x).numpy()]
    usual = gpu.counts.since(before)
    with Profile(gpu) as found:
        before = gpu.counts.copy()
        observed = [*work(), step(x).numpy()]
        since = gpu.counts.since(before)
    for a, b in zip(plain, observed, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (since.launches, since.submits) == (usual.launches, usual.submits)
    assert len(found.launched) == since.launches and sum(s.launches for s in found.submits) == since.launches
    assert gpu.stream.observer is None
    assert all(b.start >= a.start for a, b in zip(found.launched, found.launched[1:])), "in stream order"


@pytest.mark.usefixtures("timestamps")
def test_many_launches_of_one_submit_are_all_timed(gpu_device: Device) -> None:
    x = tensor(np.ones(8, np.float32), gpu_device)
    step = capture(fuse=False)(lambda a: a + 1.0)
    step(x)
    with Profile(gpu_device.gpu) as found:
        step.steps[-1].step.repeat(3000)  # beyond one set of queries
    assert len(found.launched) == 3000 and [s.launches for s in found.submits] == [3000]


@pytest.mark.usefixtures("timestamps")
def test_the_scripts_end_is_the_commands(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for ending, status, message in (
        ("sys.exit(3)", 3, ""), ("sys.exit('stop')", 1, "stop"), ("raise KeyError('lost')", 1, "KeyError: 'lost'"),
        ("sys.exit()", 0, ""),
    ):  # fmt: skip
        script.write_text(f"{SCRIPT}\n{ending}\n")
        assert main(["profile", str(script)]) == status
        out, err = capsys.readouterr()
        assert message in err and "launches in" in out, "what was recorded is shown"


@pytest.mark.usefixtures("timestamps")
def test_bad_input_is_one_line(script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script.write_text("print('nothing')\n")
    for flags, status, message in (
        ([str(tmp_path / "none.py")], 2, "expected a Python file"),
        (["--trace", str(tmp_path / "none" / "t.json"), str(script)], 2, "profile: expected a folder"),
        (["--device", "numpy", str(script)], 1, "expected a wgpu device"),
        ([str(script)], 1, "expected launches on"),
    ):
        assert main(["profile", *flags]) == status
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and message in err


def test_an_adapter_without_timestamps_says_so(gpu_device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_device.gpu, "features", frozenset[str]())
    with pytest.raises(DeviceError, match="has no timestamps"):
        Profile(gpu_device.gpu)


@pytest.mark.usefixtures("timestamps")
def test_clocks_are_put_together_so_that_no_kernel_is_early(gpu_device: Device) -> None:
    with Profile(gpu_device.gpu) as found:
        (tensor(np.ones(4, np.float32), gpu_device) + 1.0).numpy()
    kernel = found.launched[0].kernel
    found.submits[:] = [Submit(10.0, 10.1, 1), Submit(11.0, 11.1, 1)]
    found.launched[:] = [
        Launched(kernel, b"", (1, 1, 1), 16, 0, 500.0, 500.5),
        Launched(kernel, b"", (1, 1, 1), 16, 1, 500.75, 500.5),
    ]
    kernels = [e for e in profile.trace(found)["traceEvents"] if e.get("tid") == 2 and e["ph"] == "X"]
    assert [(e["ts"], e["dur"]) for e in kernels] == [(250_000.0, 500_000.0), (1_000_000.0, 0.0)]
    assert len(profile.entries(found.launched)) == 1


def test_sizes_are_read_from_texts_and_parameters() -> None:
    body, rows, other = (
        "fn before() -> u32 { return 3u; }",
        "fn rows() -> u32 { return 5u; }",
        "fn f() -> u32 { return g(); }",
    )
    assert sizes(f"{body}\n// --- header: x\n{rows}\n{other}\n") == {"rows": 5}
    code = "\n// --- header: x\nfn a() -> u32 { return params[0].y; }\nfn b() -> u32 { return params[1].x; }\n"
    assert sizes(code, np.arange(10, 18, dtype=np.uint32).tobytes()) == {"a": 11, "b": 14} and sizes(code) == {}
