"""The order of the rooms, and what may stand in which: read from the sources, without importing them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "wgpu_nn"

# ARCHITECTURE.md, bottom to top: a row may import its own and those above it in this list.
ROWS = (
    ("errors", "dtype", "shape", "switches", "files"),
    ("ops",),
    ("wgsl",),
    ("gpu",),
    ("kernels",),
    ("backends",),
    ("autodiff",),
    ("graph",),
    ("tensor",),
    ("nn",),
    ("optim",),
    ("data",),
    ("record",),
    ("metrics",),
    ("train",),
    ("models",),
    ("runs",),
    ("onnx", "web", "testing"),
    ("bench", "cli", "report"),
)
ROW = {room: i for i, row in enumerate(ROWS) for room in row}
MODULES = sorted(PACKAGE.rglob("*.py"))
PYTHON = sorted([*MODULES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "examples").rglob("*.py")])
# Rooms that may import less than the rows above them.
KNOWS_ONLY = {
    "wgsl": {"wgsl", "errors"},
    "gpu": {"gpu", "wgsl", "errors", "switches"},
    "data": {"data", "errors", "files"},
    "testing": {"testing", "gpu", "wgsl", "errors", "files"},  # anybody's WGSL, so no tensors
}


def room_of(path: Path) -> str:
    """Return the room of a module; the package's own __init__ is the front door, and stands above all."""
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if part in ("__init__", "__main__") else part


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and module of every import that runs; what only type checkers see is left out."""
    tree = ast.parse(path.read_text())
    unseen: set[int] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.If)
            and "TYPE_CHECKING" in ast.unparse(node.test)
            and "not " not in ast.unparse(node.test)
        ):
            unseen |= {id(n) for child in node.body for n in ast.walk(child)}
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            if node.module == "wgpu_nn":
                yield from ((node.lineno, f"wgpu_nn.{a.name}") for a in node.names)
            else:
                yield node.lineno, node.module or ""


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_room_has_a_row() -> None:
    rooms = {room_of(p) for p in MODULES} - {""}
    assert rooms <= ROW.keys(), f"rooms without a row: {sorted(rooms - ROW.keys())}"


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_imports_only_rows_above_its_own(path: Path) -> None:
    room = room_of(path)
    wrong: list[str] = []
    last = len(ROWS) - 1
    for line, name in imports(path):
        parts = name.split(".")
        if parts[0] != "wgpu_nn":
            continue
        other = parts[1] if len(parts) > 1 else ""
        if other not in ROW:
            if room and ROW[room] != last:
                wrong.append(f"line {line}: the front door, for {name}")
        elif room and (ROW[other] > ROW[room] or other not in KNOWS_ONLY.get(room, ROW.keys())):
            wrong.append(f"line {line}: {name}")
        elif ROW[other] == last and other != room and room != "cli" and path.name != "__main__.py":
            wrong.append(f"line {line}: {name}, which nobody imports")
    assert not wrong, f"{relative(path)} may not import: {'; '.join(wrong)}"


def test_wgpu_is_imported_in_the_gpu_room_only() -> None:
    found = {room_of(p) for p in MODULES for _, name in imports(p) if name.split(".")[0] == "wgpu"}
    assert found == {"gpu"}


def test_one_line_of_the_code_base_submits() -> None:
    found = [
        relative(p)
        for p in MODULES
        for line in p.read_text().splitlines()
        if re.search(r"wgpuQueueSubmit(ForIndex)?\(", line)
    ]
    assert found == ["wgpu_nn/gpu/sender.py"]


def test_importing_the_package_loads_no_gpu_and_is_quick() -> None:
    code = (
        "import sys, time, json; t = time.perf_counter(); import wgpu_nn;"
        "t = time.perf_counter() - t; heavy = {'wgpu', 'torch', 'matplotlib', 'rich', 'safetensors', 'PIL'};"
        "print(json.dumps([t, sorted(heavy & sys.modules.keys())]))"
    )
    times: list[float] = []
    for _ in range(5):  # the first may have to compile the modules
        seconds, loaded = ast.literal_eval(
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        )
        assert loaded == []
        times.append(seconds)
    assert min(times) < 0.3, times


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_a_file_opens_with_a_sentence_and_stays_short(path: Path) -> None:
    text = path.read_text()
    doc = ast.get_docstring(ast.parse(text))
    assert doc is not None or not text.strip(), "no docstring"
    assert doc is None or "." in doc, "the docstring's first line is no sentence"
    assert len(text.splitlines()) <= 400, "longer than 400 lines"
