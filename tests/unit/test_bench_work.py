"""The work of the benchmarks of ops: exact samples, against the same ops in double precision; and that errors are caught."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wgpu_nn import Device, tensor
from wgpu_nn.bench import compare, ops, ops_numpy, ops_ours, plot, report
from wgpu_nn.bench.engine import Facts, Label
from wgpu_nn.bench.ops_engine import Held, Job, OpsEngine
from wgpu_nn.bench.timing import Round
from wgpu_nn.bench.work import KINDS, Item
from wgpu_nn.errors import ConfigError, MissingExtraError

SMALL: dict[str, tuple[int, ...]] = {
    "matmul": (13, 17, 11),
    "conv2d": (2, 3, 9, 8, 4, 3, 1),
    "conv2d_input_grad": (2, 3, 9, 8, 4, 3, 1),
    "conv2d_weight_grad": (2, 3, 9, 8, 4, 3, 1),
    "conv_transpose2d": (2, 3, 5, 4, 4, 3, 1),
    "scale": (101,),
    "add": (99,),
    "sum all": (7, 13),
    "sum rows": (7, 13),
    "sum columns": (7, 13),
    "softmax": (7, 13),
    "log_softmax": (7, 13),
    "layer_norm": (7, 13),
    "rms_norm": (7, 13),
    "softmax, forward and backward": (7, 13),
    "attention": (2, 3, 5, 4),
    "attention, forward and backward": (2, 3, 5, 4),
    "sort": (101,),
    "argsort": (101,),
    "topk": (301,),
    "cumsum": (101,),
    "nonzero": (101,),
    "add one": (5, 7),
    "upload": (9,),
    "download": (9,),
}
ITEMS = [Item(kind, sizes) for kind, sizes in SMALL.items()]
ITEMS += [
    Item("matmul", (3, 4, 5, 6)),
    Item("conv2d", (1, 2, 5, 5, 3, 5, 0)),
    Item("conv2d_input_grad", (1, 2, 5, 5, 3, 1, 0)),
    *(Item(kind, (2, 6, 5, 4, 12, 3, 1, 3)) for kind in SMALL if kind.startswith("conv")),
    *(Item(kind, (2, 3, 5, 4, 3, 3, 0, 3)) for kind in SMALL if kind.startswith("conv")),
    *(Item(kind, (1,)) for kind in ("sort", "topk", "nonzero")),
]


def test_every_kind_is_tried_here() -> None:
    assert SMALL.keys() == KINDS.keys()
    assert ops_ours.FUNCTIONS.keys() | {"upload", "download"} == KINDS.keys()
    assert {kind for b in ops.BENCHMARKS for kind in b.kinds} == KINDS.keys()


def result_of(item: Item, exact: Device) -> np.ndarray:
    arrays = item.draw()
    if item.row.host:
        return arrays[0].astype(np.float64)
    return ops_ours.FUNCTIONS[item.kind](item, *(tensor(a, exact) for a in arrays)).numpy()


@pytest.mark.parametrize("item", ITEMS, ids=lambda i: i.key)
def test_the_reference_is_what_the_ops_give_in_double_precision(item: Item, exact: Device) -> None:
    result = result_of(item, exact)
    values, scale = item.reference(item.draw())
    np.testing.assert_allclose(item.sample(result), values, rtol=1e-12, atol=1e-12)
    whole = item.kind in ("sort", "argsort", "topk", "nonzero")  # without rounding: any difference counts in full
    assert len(scale) == len(values)
    assert set(scale) == {1.0} if whole else (np.array(scale) >= np.abs(values) * (1 - 1e-12)).all()
    assert item.shapes() == [a.shape for a in item.draw()]
    assert 0 < item.tolerance < 2e-4 and item.moved > 0


@pytest.mark.parametrize("item", ITEMS, ids=lambda i: i.key)
def test_a_small_error_anywhere_fails(item: Item, exact: Device) -> None:
    """Each element that differs by a thousandth of what it adds up; the work here is small enough to sample all."""
    result = result_of(item, exact)
    values, scale = item.reference(item.draw())

    def row(given: np.ndarray) -> compare.Row:
        held = Held()
        job = Job(lambda: None, lambda: None, lambda: given)
        found = compare.Row(OpsEngine(Label("x", "x", item.key), item, lambda i, a: job, held), True, item.tolerance)
        compare.compare(found, values, scale)
        return found

    assert row(result).agrees
    assert not row(result + 1e-3 * max(scale)).agrees
    assert not row(result * np.nan).agrees
    assert not row(result[..., None]).agrees, "of another shape"


@pytest.mark.parametrize("item", [i for i in ITEMS if i.kind in ops_numpy.FUNCTIONS], ids=lambda i: i.key)
def test_the_numpy_peer_does_the_same_work(item: Item) -> None:
    (engine,), about = ops_numpy.engines([item])
    values, scale = item.reference(item.draw())
    row = compare.Row(engine, True, item.tolerance)
    compare.compare(row, values, scale)
    assert row.agrees and about.startswith("numpy ")
    assert engine.round(2).steps == 2


def test_operations_and_bytes_are_counted() -> None:
    matmul = Item("matmul", (2, 3, 5, 7))
    assert (matmul.flops, matmul.moved) == (2 * 2 * 3 * 5 * 7, 4 * (2 * 15 + 2 * 35 + 2 * 21))
    conv = Item("conv2d", (2, 3, 9, 8, 4, 3, 1))
    assert conv.flops == 2 * (2 * 4 * 9 * 8) * 3 * 9
    assert Item("conv2d_input_grad", conv.sizes).flops == Item("conv2d_weight_grad", conv.sizes).flops == conv.flops
    depthwise = Item("conv2d_weight_grad", (2, 3, 9, 8, 6, 3, 1, 3))
    assert (depthwise.flops, depthwise.shapes()) == (2 * (2 * 6 * 9 * 8) * 9, [(2, 3, 9, 8), (2, 6, 9, 8)])
    assert Item("conv_transpose2d", (2, 3, 5, 4, 6, 3, 1, 3)).flops == 2 * (2 * 3 * 5 * 4) * 2 * 9
    assert Item("add", (10,)).moved == 120 and Item("sum rows", (3, 4)).moved == 4 * 15
    assert Item("upload", (10,)).moved == 40


def benchmark(name: str) -> ops.Benchmark:
    return next(b for b in ops.BENCHMARKS if b.name == name)


def test_shapes_are_read_and_bad_ones_are_said() -> None:
    assert benchmark("matmul").shapes("2x3x4, 5x6x7x8") == ((2, 3, 4), (5, 6, 7, 8))
    assert benchmark("conv").shapes("1x2x9x9x4x3") == ((1, 2, 9, 9, 4, 3, 0, 1),)
    assert benchmark("conv").shapes("1x2x9x9x4x3x1") == ((1, 2, 9, 9, 4, 3, 1, 1),)
    assert benchmark("conv").shapes("1x2x9x9x4x3x1x2") == ((1, 2, 9, 9, 4, 3, 1, 2),)
    for name, text in (
        ("matmul", "2x3"), ("matmul", "2x0x4"), ("matmul", "2xax4"), ("map", "3x4"), ("rows", "-3x4"), ("rows", ""),
        ("conv", "1x2x9x9x4x3x1x0"), ("conv", "1x2x9x9x4x3x1x1x1"), ("conv", "1x2x9x9x4"),
    ):  # fmt: skip
        with pytest.raises(argparse.ArgumentTypeError, match=r"expected .*N.*, all at least 1, got"):
            benchmark(name).shapes(text)
    with pytest.raises(argparse.ArgumentTypeError, match="channels and filters that groups divide"):
        benchmark("conv").shapes("1x2x9x9x3x3x1x2")
    for text in ("1x2x3x3x4x5", "1x2x9x9x4x3x3"):
        with pytest.raises(argparse.ArgumentTypeError, match="kernel within the padded image"):
            benchmark("conv").shapes(text)


def test_software_adapters_get_smaller_work() -> None:
    for b in ops.BENCHMARKS:
        large, small = (sum(i.flops + i.moved for i in b.items(software, ())) for software in (False, True))
        assert small <= large
        assert b.items(True, [(5,)])[0].sizes == (5,)


class Failing:
    """An engine that cannot do its work."""

    label = Label("x", "x", "work")

    def outcome(self) -> list[float]:
        raise ConfigError("no luck")

    def facts(self) -> Facts:
        return Facts()

    def round(self, steps: int) -> Round:
        return Round(steps, 1.0, 1.0)


def test_a_failure_is_ours_or_a_peers() -> None:
    for peer in (False, True):
        row = compare.Row(Failing(), peer, 1.0)
        compare.compare(row, [1.0])
        compare.time_rows([row], 2, None)
        assert row.failure == "no luck" and row.rounds == [] and row.good is peer


def test_shares_and_markdown() -> None:
    assert [report.share(x) for x in (None, 0.0123, 0.0996, 0.5, 1.04)] == ["-", "1.2%", "10%", "50%", "104%"]
    assert report.markdown(["work", "us"], [["a", "1"], ["bcdefg", "1,000"]]) == [
        "| work   |    us |",
        "|--------|------:|",
        "| a      |     1 |",
        "| bcdefg | 1,000 |",
    ]
    assert report.table([("", "a"), ("", "b")], [["a very long title"], ["x", "1"]]) == [
        "",
        "a  b",
        "a very long title",
        "x  1",
    ]


CHART = plot.Chart(
    "title",
    "unit",
    [
        plot.Group("one [3]", [plot.Bar("ours", 5000.0, False, "note"), plot.Bar("peer", 1.0, True)], roof=9000.0),
        plot.Group("two", [plot.Bar("ours", 2.0, False)]),
    ],
)


def test_a_plot_is_a_png(tmp_path: Path) -> None:
    plot.draw(CHART, tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(data[16:20], "big") == 1350
    with pytest.raises(ConfigError, match="choose another --plot file"):
        plot.draw(CHART, tmp_path)
    with pytest.raises(ConfigError, match="expected something to draw"):
        plot.draw(plot.Chart("t", "u", [plot.Group("g", [])]), tmp_path / "y.png")


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find: Any = lambda name: None
    monkeypatch.setattr("importlib.util.find_spec", find)
    with pytest.raises(MissingExtraError, match=r"needs the package matplotlib.*pip install 'wgpu-nn\[train\]'"):
        plot.draw(CHART, tmp_path / "x.png")
