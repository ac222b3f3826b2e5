"""The command as a user runs it, in processes of its own, on the shipped digits and the machine's adapter."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "mnist" / "mnist10k.npz"
SHORT = ("--data.limit", "600", "--batch-size", "32", "--model.hidden-size", "64")


def started(*words: object, folder: Path) -> subprocess.Popen[str]:
    """Start the command in ``folder``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    return subprocess.Popen(
        [sys.executable, "-m", "wgpu_nn", *map(str, words)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def done(*words: object, folder: Path) -> str:
    """Run the command to its end, and return what it printed."""
    process = started(*words, folder=folder)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT for one process on Windows")
def test_a_run_is_stopped_resumed_evaluated_predicted_from_and_reported(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(done("train", "--init", "mnist", folder=tmp_path))
    config = ("train", "config.json", "--data.path", DIGITS, *SHORT)
    process = started(*config, "--epochs", 10_000, folder=tmp_path)  # however quick the adapter is
    assert process.stdout is not None
    assert next((line for line in process.stdout if line.startswith("epoch 1")), None), process.communicate()[1]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "wgpu-nn resume runs" in err, err

    run = tmp_path / "runs" / "config"
    assert json.loads((run / "run.json").read_text())["state"] == "stopped"
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = 1 + sum(line["kind"] == "epoch" for line in log)
    assert "the run is in" in done("resume", run, "--epochs", epochs, folder=tmp_path)
    assert json.loads((run / "run.json").read_text())["state"] == "done"
    done(*config, "--epochs", epochs, "--run", "whole", folder=tmp_path)  # and never stopped
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()

    values = json.loads(done("eval", run, "--json", folder=tmp_path))
    assert values["items"] == 600 and values["accuracy"] > 0.3  # ten classes, 19 steps
    with np.load(DIGITS) as digits:
        np.savez(tmp_path / "some.npz", x=digits["x"][:7])
    done("predict", run, "some.npz", "--out", "found.csv", folder=tmp_path)
    with (tmp_path / "found.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 and all(
        row["class"] in "0123456789" and 0.1 <= float(row["probability"]) <= 1 for row in rows
    )
    done("report", run, folder=tmp_path)
    assert "<svg" in (run / "report.html").read_text(encoding="utf-8")
