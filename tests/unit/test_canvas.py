"""The canvas: a PNG that appears when all was drawn, and nothing of matplotlib's own settings changes."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import pytest
from PIL import Image

from wgpu_nn.errors import MissingExtraError, RecordError
from wgpu_nn.report import canvas


def test_what_is_drawn_becomes_a_png_of_its_size(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    with canvas(tmp_path / "new" / "a.png", (4, 3), "A title", dpi=50) as page:
        page.subplots().plot([0, 1], [1, 0])
        assert not (tmp_path / "new").exists()
    assert dict(matplotlib.rcParams) == before
    with Image.open(tmp_path / "new" / "a.png") as image:
        # The margin of a quarter of an inch may lie beyond the page, or within it.
        assert abs(image.width - 200) <= 30 and abs(image.height - 150) <= 30
        colours = image.convert("RGB").getcolors(256)
    assert colours and {(0xFF, 0xFF, 0xFF), (0x25, 0x63, 0xEB)} <= {colour for _, colour in colours}


def test_nothing_is_written_when_drawing_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), canvas(tmp_path / "new" / "a.png") as page:
        page.subplots().plot([1 / 0])
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(RecordError, match=r"a\.png"), canvas(tmp_path / "a.png"):
        pass


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"wgpu-nn\[train\]"), canvas(tmp_path / "a.png"):
        pass
