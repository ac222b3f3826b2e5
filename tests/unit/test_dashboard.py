"""What people see: the dashboard, the keys of a real terminal, a notebook's table, and numbers as they are written."""

from __future__ import annotations

import io
import math
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from wgpu_nn.train import EpochRecord, Snapshot, notebook, progress
from wgpu_nn.train.figures import binned, nbytes, number, sparkline

ROOT = Path(__file__).parents[2]
NOW = Snapshot(
    2, 10, 45, 141, {"loss": 0.83124}, 1412.4, 130.2, lr=5.3e-4, launches_per_step=23.2, gpu_bytes=45_234_000
)


def record(epoch: int, loss: float) -> EpochRecord:
    return EpochRecord(
        epoch, 141 * epoch, {"loss": loss, "f1": 0.5}, {"loss": loss, "f1": 0.1 * epoch}, 0.001, 9.0, 14.0
    )


# --- the dashboard ---------------------------------------------------------------------------------------------------
@pytest.fixture
def drawn() -> Any:
    """Returns a dashboard after three epochs, and what its panel shows."""
    console = pytest.importorskip("rich.console")
    from wgpu_nn.train.dashboard import Dashboard

    screen = console.Console(file=io.StringIO(), force_terminal=True, width=90)
    made = Dashboard(io.StringIO(), screen)
    made.begin({"f1": "higher"})
    for epoch, loss in ((1, 0.9), (2, 0.4), (3, 0.6)):
        made.update(Snapshot(epoch, 10, 1, 141, {"loss": loss}, losses=[2.0, 1.0, loss]))
        made.epoch(record(epoch, loss))
    made.end()
    plain = console.Console(file=io.StringIO(), width=90)
    plain.print(made.panel(NOW))
    return plain.file.getvalue()


def test_the_dashboard_has_progress_values_best_curves_rate_memory_and_launches(drawn: str):
    for part in (
        "epoch 2/10",
        "batch 45/141",
        "2:10 min left",
        "lr 5.30e-04",
        "1,412 items/s",
        "43.1 MiB",
        "23 launches/step",
    ):
        assert part in drawn, part
    rows = {line.split()[1]: line.split()[2:-1] for line in drawn.splitlines() if len(line.split()) > 3}
    assert rows["loss"][:2] == ["by", "step"] or rows["loss"]
    values = [line.split()[1:-1] for line in drawn.splitlines() if line.split()[1:2] in (["loss"], ["f1"])]
    assert values[0] == ["loss", "0.8312", "0.6000", "0.6000", "0.4000", "epoch", "2"]
    assert values[1] == ["f1", "0.5000", "0.3000", "0.3000", "epoch", "3"]
    assert "2.0000 to 0.6000" in drawn and "█" in drawn and "Ctrl-C saves and stops" in drawn


def test_a_line_for_each_epoch_stays_also_where_epochs_are_shorter_than_a_drawing_pays():
    console = pytest.importorskip("rich.console")
    from wgpu_nn.train.dashboard import Dashboard

    screen = console.Console(file=io.StringIO(), force_terminal=True, width=90)
    drawn: list[int] = []
    made = Dashboard(io.StringIO(), screen)
    made.begin({})
    for epoch in range(1, 101):
        made.epoch(record(epoch, 1.0 / epoch))
        drawn.append(screen.file.getvalue().count("train"))
        if epoch == 50:
            made.note("half of it")
    made.end()
    text = screen.file.getvalue()
    places = [text.index(f"epoch {epoch:>3}") for epoch in range(1, 101)]
    assert places == sorted(places) and places[49] < text.index("half of it") < places[50]
    assert drawn[0] == 1 and drawn[49] < 50  # the first one at once, and others wait


def test_below_the_lines_of_epochs_is_the_panel_as_it_is_now(monkeypatch: pytest.MonkeyPatch):
    console = pytest.importorskip("rich.console")
    from wgpu_nn.train import dashboard

    clock = [0.0]
    monkeypatch.setattr(dashboard.time, "perf_counter", lambda: clock[0])
    screen = console.Console(file=io.StringIO(), force_terminal=True, width=90)
    made = dashboard.Dashboard(io.StringIO(), screen)
    made.begin({})
    for epoch in (1, 2, 3):
        made.update(Snapshot(epoch, 10, 45, 141))  # not drawn but for the first one
        clock[0] += 10.0
        made.epoch(record(epoch, 0.5))
        made._next = clock[0] + 5.0  # pyright: ignore[reportPrivateUsage]
    text = screen.file.getvalue()
    made.end()
    assert text.rindex("3/10") > text.index("epoch   3")


def test_a_curve_of_many_steps_takes_bounded_memory():
    pytest.importorskip("rich")
    from wgpu_nn.train import dashboard

    made = dashboard.Dashboard(io.StringIO())
    for step in range(500):
        made.update(Snapshot(1, 1, 1, 1, losses=[float(step)] * 64))
    points: list[float] = made._losses  # pyright: ignore[reportPrivateUsage]
    assert len(points) < dashboard.POINTS and points == sorted(points) and points[-1] > 490


SCRIPT = """
import os, sys
terminal = os.open(sys.argv[1], os.O_RDWR)  # the first one that a new session opens becomes its own
for descriptor in (0, 1, 2):
    os.dup2(terminal, descriptor)
import termios, time
import numpy as np
from wgpu_nn import Device
from wgpu_nn.data import ArrayDataset, DataLoader
from wgpu_nn.nn import LinearConfig, MseLossConfig
from wgpu_nn.optim import SgdConfig
from wgpu_nn.train import Learner, progress
before = termios.tcgetattr(0)
x = np.zeros((8, 2), np.float32)
def slow(items):
    time.sleep(0.005)
    return items
data = DataLoader(ArrayDataset(x, x), 1, shuffle=False, seed=0, transform=slow)
model = LinearConfig(2, 2).init(Device("numpy").autodiff())
result = Learner(model, SgdConfig().init(), MseLossConfig().init()).fit(data, epochs=2000, show=progress())
assert termios.tcgetattr(0) == before
print("stopped", result.interrupted, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_q_in_a_real_terminal_stops_the_run_and_the_terminal_is_as_it_was():
    pytest.importorskip("rich")
    import pty

    master, slave = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, os.ttyname(slave)], env=environment, start_new_session=True, close_fds=True
    )
    seen, asked, until = b"", False, time.monotonic() + 60
    try:
        while b"stopped True" not in seen and process.poll() is None and time.monotonic() < until:
            if select.select([master], [], [], 1.0)[0]:
                seen += os.read(master, 4096)
            if not asked and b"q save and stop" in seen:
                os.write(master, b"q")
                asked = True
        assert asked and b"stopped True" in seen, seen[-2000:]
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        os.close(slave)
        os.close(master)


# --- a notebook ------------------------------------------------------------------------------------------------------
def test_in_a_notebook_a_table_is_replaced_in_place(monkeypatch: pytest.MonkeyPatch):
    pages: list[str] = []
    display = ModuleType("IPython.display")
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    handle = SimpleNamespace(update=pages.append)
    display.HTML = str  # pyright: ignore[reportAttributeAccessIssue]
    display.display = lambda html, display_id: handle  # pyright: ignore[reportAttributeAccessIssue]
    show = progress()
    assert isinstance(show, notebook.Notebook)
    better: Mapping[str, str | None] = {}
    show.begin(better)
    show.note("a <note>")
    show.update(NOW)
    show.epoch(record(1, 0.5))
    show.end()
    assert "a &lt;note&gt;" in pages[0] and "<progress value='0.3191'" in pages[1]
    assert "valid f1" in pages[2] and "0.1000" in pages[2] and "<progress" not in pages[-1]
    assert show.pressed() == ""


def test_outside_of_a_notebook_there_is_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert not notebook.in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not notebook.in_notebook()


# --- numbers ---------------------------------------------------------------------------------------------------------
def test_numbers_are_written_in_four_digits_or_so():
    written = [number(x) for x in (0.0, 0.83124, -1.5, 12.345, 1234.5, 1.2e-5, 3e8, math.nan, -math.inf)]
    assert written == ["0.0000", "0.8312", "-1.5000", "12.35", "1,234", "1.20e-05", "3.00e+08", "nan", "-inf"]
    assert [nbytes(n) for n in (0, 999, 1000, 45_234_000, 3 << 40)] == [
        "0 B",
        "999 B",
        "1.0 KiB",
        "43.1 MiB",
        "3.0 TiB",
    ]


def test_a_sparkline_goes_from_low_to_high_and_leaves_gaps():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([1.0, math.nan, 1.0], 8) == "▁ ▁" and sparkline([math.nan], 8) == "" == sparkline([], 8)
    assert binned([1, 3, math.nan, 5, math.nan, math.nan], 3)[:2] == [2, 5]
    assert len(sparkline(list(range(1000)), 40)) == 40
