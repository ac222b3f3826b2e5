"""``wgpu-nn bench learner``: its table and its JSON, in a few steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wgpu_nn.cli import main


def test_the_learner_is_compared_with_a_loop_written_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "learner.json"
    assert main(["bench", "learner", "--batch", "2", "--steps", "8", "--rounds", "2", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert "Learner, loss and accuracy" in out and "over the bare one" in out
    rows = json.loads(path.read_text())["rows"]
    assert [len(row["rounds_us"]) for row in rows] == [2] * 4
    bare, ours = rows[0]["launches"], rows[1]["launches"]
    assert bare <= ours <= bare + 2  # the Learner puts the loss where it is read later
