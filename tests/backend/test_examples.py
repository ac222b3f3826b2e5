"""Every example in its short form, as its users run it: it ends well, says what it should, and leaves a picture."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
# What a short run says, and between which bounds: chance is 10% of digits, 33% of seeds, 25% of messages, 543 nats an image.
SCRIPTS = {
    "learner/train.py": (r"'accuracy': ([\d.]+)}", 0.25, 1),
    "loop/train.py": (r"accuracy ([\d.]+)%", 25, 100),
    "guide/main.py": (r"epoch 2: .*, ([\d.]+)% of the test digits", 25, 100),
    "csv_table/train.py": (r"test: ([\d.]+)% right", 60, 100),
    "image_folder/train.py": (r"test: ([\d.]+)% right", 5, 100),  # two epochs of a few images teach nothing yet
    "text/train.py": (r"test: ([\d.]+)% in the right queue", 60, 100),
    "vae/train.py": (r"test: ([\d.]+) nats an image", 100, 400),
    "regression/train.py": (r"([\d.]+)% within the interval", 50, 100),
    "cpu_metrics/train.py": (r"CPU and GPU differ by ([\d.e+-]+) at most", 0, 1e-4),
    "notebook/main.py": (r"valid loss [\d.]+  accuracy ([\d.]+)", 0.15, 1),
}
LINES = {"learner/train.py": 20, "loop/train.py": 30}


def run(script: str, *args: str) -> str:
    """Run a script from another folder, and return what it printed."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error::DeprecationWarning:__main__"}
    command = [sys.executable, str(EXAMPLES / script), *args]
    done = subprocess.run(command, env=env, capture_output=True, encoding="utf-8", timeout=240)
    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def check_picture(path: Path) -> None:
    """Hold a picture to being one: it opens, is large enough to be looked at, and is neither blank nor noise-free paper."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) >= 300, path
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50, path
    assert 0.01 < (pixels < 200).any(2).mean() < 0.9, path


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_runs_learns_and_draws(script: str, tmp_path: Path) -> None:
    said = run(script, "--short", "--out", str(tmp_path / "out"))
    pattern, least, most = SCRIPTS[script]
    found = re.findall(pattern, said)
    assert found, said[-2000:]
    assert least <= float(found[-1]) <= most, said[-2000:]
    check_picture(tmp_path / "out" / "picture.png")


def test_every_example_is_run_here_and_has_its_picture_and_its_page() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and any(path.glob("*.py"))} - {
        "mnist",
        "shader_tests",
    }
    assert folders == {name.split("/")[0] for name in SCRIPTS}, "others run mnist and shader_tests"
    for name in folders:
        picture = EXAMPLES / name / "picture.png"
        check_picture(picture)
        assert picture.stat().st_size < 100_000, picture
        page = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
        assert "picture.png" in page and 5 <= len(page.splitlines()) <= 20, name


@pytest.mark.parametrize("script", LINES)
def test_the_short_ones_stay_as_short_as_they_say(script: str) -> None:
    text = (EXAMPLES / script).read_text(encoding="utf-8")
    docstring = ast.parse(text).body[0].end_lineno or 0
    code = [line for line in text.splitlines()[docstring:] if line.strip() and not line.lstrip().startswith("#")]
    # --short is for this test; a user's own script needs no command line.
    code = [line for line in code if "argparse" not in line and not re.match(r"parser\.|args = ", line)]
    assert len(code) <= LINES[script], len(code)
    assert max(map(len, code)) <= 120


def test_the_notebook_holds_no_output_but_its_picture() -> None:
    notebook = json.loads((EXAMPLES / "notebook" / "digits.ipynb").read_text(encoding="utf-8"))
    outputs = [out for cell in notebook["cells"] for out in cell.get("outputs", ())]
    assert [list(out["data"]) for out in outputs] == [["image/png", "text/plain"]]
    assert all(cell.get("execution_count") is None for cell in notebook["cells"])
