"""The wgpu-nn command: what it says of adapters, and that its self-check can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import wgpu_nn
from wgpu_nn import Device
from wgpu_nn.cli import info, main
from wgpu_nn.gpu import adapters

ROOT = Path(__file__).parents[2]


def test_info_lists_every_adapter_and_checks_the_chosen_one(capsys: pytest.CaptureFixture[str], gpu_device: Device):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for adapter in adapters():
        assert f"{adapter.index}: {adapter.name}" in out
    assert f"* {gpu_device.gpu.adapter.index}: " in out
    for word in ("driver", "largest binding", "workgroup memory", "features", "chosen: ", "GFLOP/s: ok"):
        assert word in out


def test_info_checks_the_adapter_that_is_asked_for(capsys: pytest.CaptureFixture[str]):
    assert main(["info", adapters()[-1].name[:6].upper()]) == 0
    assert "asked for" in capsys.readouterr().out


def test_info_says_what_there_is_when_nothing_matches(capsys: pytest.CaptureFixture[str]):
    assert main(["info", "no such adapter"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "matches none" in err and adapters()[0].name in err


def test_a_wrong_product_fails_the_check(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, cpu: Device
):
    assert info.self_check(cpu, 64).ok
    multiply = info.multiply
    for wrong in (lambda x, y: multiply(x, y) + 0.1, lambda x, y: multiply(x, y) * float("nan")):
        monkeypatch.setattr(info, "multiply", wrong)
        assert not info.self_check(cpu, 64).ok
        assert main(["info"]) == 1
        assert "FAILED" in capsys.readouterr().out


def test_without_an_adapter_the_way_out_is_said():
    # No such driver file: the Vulkan loader finds no adapter. Where Metal or DX12 answer, there is nothing to test.
    environment = {**os.environ, "VK_ICD_FILENAMES": "/nonexistent", "VK_DRIVER_FILES": "/nonexistent"}
    command = [sys.executable, "-m", "wgpu_nn", "info"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode == 0:
        pytest.skip("an adapter answers without Vulkan")
    assert done.returncode == 1 and done.stdout == ""
    assert "none answers" in done.stderr and "mesa-vulkan-drivers" in done.stderr and "Traceback" not in done.stderr


def test_version_and_usage(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"wgpu-nn {wgpu_nn.__version__}\n"
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "usage: wgpu-nn" in capsys.readouterr().err


def test_explain_chooses_for_this_machines_adapter(capsys: pytest.CaptureFixture[str], gpu_device: Device):
    assert main(["explain", "matmul", "64", "64", "64"]) == 0
    out = capsys.readouterr().out
    limits = gpu_device.gpu.limits
    assert gpu_device.gpu.adapter.name in out
    assert f"{limits['max-compute-invocations-per-workgroup']} invocations" in " ".join(out.split())
    assert main(["explain", "matmul", "64", "64", "64", "--adapter", "no such"]) == 1
    assert "--adapter gpu and --adapter software need none" in capsys.readouterr().err
