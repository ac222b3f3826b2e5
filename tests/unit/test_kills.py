"""Runs killed by SIGKILL at random moments come to the same weights as one that was left alone; see tests/kills.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("WGPU_NN_KILLS", "12"))  # 1000 for the full size: some minutes


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL, and no fork")
def test_runs_killed_at_any_moment_resume_bit_for_bit():
    done = subprocess.run(
        [sys.executable, "-m", "tests.kills", str(KILLS)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "all resumed" in done.stdout
