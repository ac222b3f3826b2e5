"""The README: its code runs as it stands and its model learns; what it names exists."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wgpu_nn import Tensor, metrics, nn, tensor
from wgpu_nn.cli.bench import BENCHMARKS

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("name", ["wgpu", "numpy"])
def test_the_readmes_code_runs_and_its_model_learns(name: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 3
    names: dict[str, Any] = {}
    for code in blocks:
        exec(code.replace("Device()", f'Device("{name}")'), names)
    assert [names[n].shape for n in ("attended", "doubled", "best")] == [(2, 8, 100, 64), (1, 4, 14, 14), (2, 10)]
    np.testing.assert_array_equal(names["large"].numpy(), np.argwhere(names["attended"].numpy() > 1.0))
    assert names["near_miss"] == pytest.approx(1 / 3) and names["f1"] == pytest.approx(2 / 3)
    device = names["device"].autodiff()
    rng = np.random.default_rng(0)
    x = tensor(rng.random((8, 28, 28), dtype=np.float32), device)
    y = tensor(rng.integers(0, 10, 8), device)
    losses = [names["step"](x, y).item() for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]


def test_the_layers_and_methods_that_it_lists_exist() -> None:
    text = README.read_text(encoding="utf-8")
    table = text.partition("## What there is")[2].partition("```")[0]
    known = {*vars(nn), *dir(Tensor)}
    for name in re.findall(r"`([\w/]+)`", table):
        stem, *more = name.split("/")
        assert stem in known, name
        assert all(stem[: -len(m)] + m in known for m in more), name


def test_the_metrics_that_it_lists_are_all_there_are() -> None:
    table = README.read_text(encoding="utf-8").partition("## Metrics")[2].partition("A metric is")[0]
    bases = (metrics.Metric, metrics.TextMetric)
    exported = (name for name in metrics.__all__ if inspect.isclass(getattr(metrics, name)))
    assert {*re.findall(r"`(\w+)`", table)} == {
        n for n in exported if issubclass(getattr(metrics, n), bases) and getattr(metrics, n) not in bases
    }


def test_the_benchmarks_that_it_lists_exist() -> None:
    listed = re.search(r"wgpu-nn bench (\w+).*# also ([\w ]+)", README.read_text(encoding="utf-8"))
    assert listed is not None
    assert {listed[1], *listed[2].split()} == {b.name for b in BENCHMARKS}


def test_its_commands_exist() -> None:
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{command}:" in makefile for command in ("train", "test"))
