"""Reports of run folders: one page that loads nothing, has the run's numbers, and survives whatever a folder holds."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.run_folders import CONFIG, lines, write_details, write_run, write_samples
from wgpu_nn.cli import main
from wgpu_nn.report import charts, draw, page, read_run, read_runs
from wgpu_nn.report.curves import POINTS, binned
from wgpu_nn.report.svg import powers, ticks

VOID = {"meta", "img", "br", "link", "input", "hr"}
NASTY = """<script>alert("x")</script> & 'é' \\ ̈"""


class Page(HTMLParser):
    """Holds a page to well-formedness, and collects its addresses, its text, and the values of its charts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.charts: dict[str, dict[str, Any]] = {}
        self.images: list[str] = []
        self.tags: list[str] = []
        self.said: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        named = dict(attrs)
        self.addresses += [v or "" for n, v in attrs if n in ("src", "href", "action", "data", "srcset", "xlink:href")]
        if tag == "img":
            self.images.append(named["src"] or "")
        if "data-chart" in named:
            self.charts[named["aria-label"] or ""] = json.loads(named["data-chart"] or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"closes {tag} out of order"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.said.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.said)

    def line(self, chart: str, label: str) -> dict[str, Any]:
        return next(x for x in self.charts[chart]["lines"] if x["label"] == label)


def of(*folders: Path) -> Page:
    return Page(page(read_runs(folders)))


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_details(run, 4)
    write_samples(run, np.zeros((3, 5, 4), np.float32))
    text = page([read_run(run)])
    found = Page(text)
    assert all(address.startswith("data:image/png;base64,") for address in found.addresses)
    assert "default-src 'none'" in text and not re.search(r"url\(|@import|fetch\(|import\s*\(|XMLHttp", text)
    # The one address is a name: that of SVG, which a script must give to make an element.
    assert set(re.findall(r"\w+://[^\s\"'<)]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "link" not in found.tags and "iframe" not in found.tags


def test_the_numbers_are_those_of_the_run(tmp_path: Path) -> None:
    log = lines()
    found = of(write_run(tmp_path / "run", log))
    epochs = [line for line in log if line["kind"] == "epoch"]
    valid = found.line("accuracy over epochs", "valid")
    assert valid["x"] == [e["epoch"] for e in epochs]
    assert valid["y"] == pytest.approx([e["valid"]["accuracy"] for e in epochs], rel=1e-5)
    assert found.line("loss over epochs", "train")["y"] == pytest.approx([e["train"]["loss"] for e in epochs], rel=1e-5)
    steps = [line for line in log if line["kind"] == "step"]
    assert found.line("loss by step over steps", "train")["y"] == pytest.approx([s["loss"] for s in steps], rel=1e-5)
    assert found.line("learning rate over steps", "train")["y"] == pytest.approx([s["lr"] for s in steps], rel=1e-5)
    for e in epochs:
        assert f"{e['valid']['f1']:.6g}" in found.text
    for said in ("batch_size", "llvmpipe", "Adam(lr=0.001)", "conv: Conv2d", "0:01:40 h", "13610", "7.50", "64.0"):
        assert said in found.text, said


def test_places_on_a_chart_are_where_the_values_are(tmp_path: Path) -> None:
    line = of(write_run(tmp_path / "run")).line("loss over epochs", "valid")
    y, py, px = (np.array(line[k]) for k in ("y", "py", "px"))
    assert (np.argsort(y) == np.argsort(-py)).all() and np.ptp(np.diff(px)) < 0.2
    slope = np.polyfit(y, py, 1)
    np.testing.assert_allclose(np.polyval(slope, y), py, atol=0.06)  # places have one digit behind the point


def test_the_best_epoch_is_marked_and_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_details(run, 6)
    wanted = write_details(run, 4)
    read = read_run(run)
    best = read.best("accuracy")
    assert read.best_epoch == 4 and best is not None and best[:2] == ("valid", 4)
    assert read.best("train.loss") == ("train", 6, pytest.approx(lines()[-1]["train"]["loss"]))
    assert read.details_of == 4 and (read.details["confusion.matrix"] == wanted["confusion.matrix"]).all()
    text = page([read])
    assert f"Best epoch 4: valid accuracy {best[2]:.6g}" in Page(text).text
    assert f"valid, best {best[2]:.6g} in epoch 4" in text and text.count('class="best ') == 3


def test_a_confusion_matrix_is_a_table_with_its_largest_mistakes_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    matrix = write_details(run, 4)["confusion.matrix"]
    text = page([read_run(run)])
    cells = re.search(r'<table class="matrix">.*?</table>', text)
    assert cells is not None
    assert [int(n) for n in re.findall(r"<td[^>]*>(\d+)</td>", cells[0])] == matrix.ravel().tolist()
    assert f"4 taken for 9</th><td class=n>{matrix[4, 9]}" in text


def test_classes_are_called_by_their_names_where_the_run_has_them(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_details(run, 4)
    (run / "data.json").write_text(json.dumps({"classes": ["lily", "<b>rose"]}))
    text = page([read_run(run)])
    assert "<th>lily</th><th>&lt;b&gt;rose</th><th>2</th>" in text and "<b>rose" not in text


def test_a_matrix_of_many_classes_is_an_image(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_details(run, 4, classes=120)
    found = of(run)
    image = Image.open(io.BytesIO(base64.b64decode(found.images[0].partition(",")[2])))
    assert image.size == (120, 120) and "4 taken for 9" in found.text


IMAGES = {
    "bytes": (np.arange(40, dtype=np.uint8).reshape(2, 5, 4), "L"),
    "brightness": (np.linspace(0, 1, 40).reshape(2, 1, 5, 4), "L"),
    "channels first": (np.arange(120, dtype=np.uint8).reshape(2, 3, 5, 4), "RGB"),
    "channels last": (np.arange(120, dtype=np.uint8).reshape(2, 5, 4, 3), "RGB"),
    "normalised": (np.linspace(-2, 3, 40).reshape(2, 5, 4), "L"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_samples_that_were_wrong_are_images(name: str, tmp_path: Path) -> None:
    inputs, mode = IMAGES[name]
    run = write_run(tmp_path / "run")
    write_samples(run, inputs)
    found = of(run)
    images = [Image.open(io.BytesIO(base64.b64decode(x.partition(",")[2]))) for x in found.images]
    assert [(i.size, i.mode) for i in images] == [((4, 5), mode)] * 2
    shown = np.stack([np.asarray(i) for i in images]).astype(int)
    wanted = np.moveaxis(inputs, 1, -1) if name == "channels first" else inputs
    if inputs.dtype == np.uint8:
        np.testing.assert_array_equal(shown, wanted)
    else:
        assert shown.min() == 0 and shown.max() == 255 and (np.diff(shown.ravel()) >= 0).all()
    assert "4 taken for" in found.text and "score 0.99" in found.text


def test_large_samples_are_made_smaller_and_classes_may_be_names(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    inputs, names = np.zeros((1, 300, 200, 3), np.uint8), np.array(["<b>cat</b>"])
    np.savez(run / "samples.npz", inputs=inputs, target=names, predicted=names, score=np.ones(1))
    found = of(run)
    assert Image.open(io.BytesIO(base64.b64decode(found.images[0].partition(",")[2]))).size == (67, 100)
    assert "<b>cat</b> taken for" in found.text


def test_samples_that_are_no_images_show_their_first_numbers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_samples(run, np.arange(40.0).reshape(2, 20))
    found = of(run)
    assert not found.images and "20, 21, 22" in found.text


def test_whatever_a_run_says_is_text(tmp_path: Path) -> None:
    log = [{**line, NASTY: 1.5} if line["kind"] == "step" else line for line in lines(2, 3)]
    log[-1]["valid"][NASTY] = 0.5
    said = {"state": "failed", "message": NASTY, "model": NASTY, "adapter": {NASTY: NASTY}, "optimizer": [NASTY]}
    run = write_run(tmp_path / "a&amp;b'c", log, config={NASTY: NASTY}, **said)
    text = page([read_run(run)])
    found = Page(text)
    assert found.tags.count("script") == 1 and "alert(" not in text.split("<script>")[1]
    assert html.escape(NASTY) in text and NASTY in found.text and f"{NASTY} by step over steps" in found.charts
    assert "a&amp;b'c" in found.text


def test_several_runs_are_laid_over_each_other_and_their_configs_compared(tmp_path: Path) -> None:
    other = {**CONFIG, "optimizer": {"lr": 3e-3}, "extra": True}
    found = of(write_run(tmp_path / "a"), write_run(tmp_path / "b", lines(3, 20, 2.0), config=other))
    labels = [line["label"] for line in found.charts["loss over epochs"]["lines"]]
    assert labels == ["a, valid", "a, train", "b, valid", "b, train"]
    assert len({line["colour"] for line in found.charts["loss by step over steps"]["lines"]}) == 2
    assert found.text.count("conv: Conv2d") == 1 and "Model of all runs" in found.text
    differ, _, equal = found.text.partition("that are equal")
    assert "optimizer.lr" in differ and "extra" in differ and "model.classes" in equal and "seed" in equal


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / part / "run") for part in ("a", "b")]
    assert [run.name for run in read_runs(paths)] == ["a/run", "b/run"]
    assert [run.name for run in read_runs([paths[0]] * 2)] == ["run (1)", "run (2)"]


def test_a_run_that_goes_on_is_reported_without_its_torn_line(tmp_path: Path) -> None:
    log = lines()[:25]  # one epoch, and some steps
    run = write_run(tmp_path / "run", log, state="running", ended=None, torn='{"kind": "step", "epo')
    found = of(run)
    assert "running" in found.text and "last line written" in found.text
    assert len(found.line("loss by step over steps", "train")["y"]) == 24
    assert found.line("loss over epochs", "valid")["x"] == [1]


def test_a_run_before_its_first_step_has_a_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [], state="running", ended=None)
    assert "Nothing was measured yet" in of(run).text
    (run / "metrics.jsonl").unlink()
    (run / "config.json").unlink()
    assert "Nothing was measured yet" in of(run).text
    assert not charts([read_run(run)])


def test_what_is_not_finite_leaves_gaps(tmp_path: Path) -> None:
    log = lines(5, 4)
    log[2]["loss"], log[-1]["valid"]["loss"], log[4]["valid"]["loss"] = "nan", "inf", "-inf"
    found = of(write_run(tmp_path / "run", log))
    assert found.line("loss over epochs", "valid")["x"] == [2, 3, 4]
    assert len(found.line("loss by step over steps", "train")["y"]) == 19
    assert "nan" in found.text or "inf" in found.text


def test_long_runs_are_drawn_by_means() -> None:
    xs, ys = list(range(10_007)), [math.sin(i / 700) for i in range(10_007)]
    px, py = binned(xs, ys)
    assert len(px) == POINTS and px == sorted(px)
    np.testing.assert_allclose(py, np.sin(np.array(px) / 700), atol=1e-3)
    assert binned(xs[:3], ys[:3]) == (xs[:3], ys[:3])


@pytest.mark.parametrize("low, high", [(0, 1), (0.3, 0.301), (-5, 12), (1, 2), (1e-9, 3e-9), (0, 123456), (999, 1001)])
def test_ticks_are_round_few_and_within(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 9 and low - 1e-12 <= found[0] and found[-1] <= high * (1 + 1e-9)
    assert all(isinstance(t, int) or t == int(t) for t in ticks(1, 4, whole=True))
    assert powers(0.005, 20) == pytest.approx([0.01, 0.1, 1, 10])


def test_values_far_apart_are_drawn_by_logarithms(tmp_path: Path) -> None:
    log = lines(8, 2)
    for line in log:
        if line["kind"] == "epoch":
            line["valid"]["loss"] = line["train"]["loss"] = 10.0 ** -line["epoch"]
    line = of(write_run(tmp_path / "run", log)).line("loss over epochs", "valid")
    assert np.ptp(np.diff(line["py"])) < 0.3  # equal factors are equally far apart


def test_the_picture_has_a_chart_for_each_number(tmp_path: Path) -> None:
    runs = read_runs([write_run(tmp_path / "one"), write_run(tmp_path / "two", lines(3))])
    image = Image.open(io.BytesIO(draw("one, two", charts(runs))))
    assert image.format == "PNG" and image.size[0] > image.size[1] * 0.8 > 600
    shown = np.asarray(image.convert("RGB"))
    for colour in ((0x0B, 0x6E, 0x4F), (0xCF, 0x5C, 0x36)):  # of the two runs
        assert (shown == colour).all(-1).any()


def test_without_matplotlib_the_extra_is_named_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    run = write_run(tmp_path / "run")
    assert main(["report", str(run), "--png", str(tmp_path / "out.png")]) == 1
    assert "pip install 'wgpu-nn[train]'" in capsys.readouterr().err and not (run / "report.html").exists()
    assert main(["report", str(run)]) == 0


def test_the_command_writes_the_page_and_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run")
    assert main(["report", str(run)]) == 0
    assert Page((run / "report.html").read_text(encoding="utf-8")).charts
    out, picture = tmp_path / "out.html", tmp_path / "out.png"
    assert main(["report", str(run), "--out", str(out), "--png", str(picture)]) == 0
    assert capsys.readouterr().out.split() == [str(run / "report.html"), str(out), str(picture)]
    assert out.stat().st_size > 20_000 and picture.read_bytes().startswith(b"\x89PNG")


def test_what_is_no_run_is_refused_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, empty, out = write_run(tmp_path / "run"), tmp_path / "empty", tmp_path / "out.html"
    empty.mkdir()
    for bad, says in (
        (empty, "expected metrics.jsonl or run.json in it, got neither"),
        (tmp_path / "nowhere", "expected the folder of a run, got nothing there"),
        (run / "run.json", "expected the folder of a run, got a file"),
    ):
        assert main(["report", str(run), str(bad), "--out", str(out)]) == 1
        assert says in capsys.readouterr().err and not out.exists()
    assert main(["report", str(run), "--out", str(empty)]) == 2
    assert "expected a file for --out" in capsys.readouterr().err
    assert main(["report", str(run), "--out", str(tmp_path / "no" / "out.html")]) == 1
    assert "does the folder exist" in capsys.readouterr().err
    with pytest.raises(SystemExit) as usage:
        main(["report"])
    assert usage.value.code == 2


@pytest.mark.parametrize("name", ["run.json", "config.json", "metrics.jsonl", "details/epoch-4.npz", "samples.npz"])
def test_a_broken_file_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run")
    write_details(run, 4)
    (run / name).write_bytes(b"[1, 2\n\xff")
    assert main(["report", str(run)]) == 1
    assert name.rpartition("/")[2] in capsys.readouterr().err and not (run / "report.html").exists()


@pytest.mark.parametrize("field, value", [("valid", 0.5), ("epoch", "one"), ("step", None)])
def test_a_line_that_is_none_of_a_run_is_named(
    field: str, value: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = lines(2, 3)
    log[3][field] = value
    assert main(["report", str(write_run(tmp_path / "run", log))]) == 1
    assert "line 4: expected" in capsys.readouterr().err


def test_samples_of_unequal_lengths_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run")
    np.savez(run / "samples.npz", inputs=np.zeros((2, 3)), target=np.zeros(2), predicted=np.zeros(1), score=np.zeros(2))
    assert main(["report", str(run)]) == 1
    assert "expected inputs, target, predicted and score of as many items" in capsys.readouterr().err
