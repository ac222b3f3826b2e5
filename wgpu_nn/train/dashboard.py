"""A live dashboard on a terminal, by rich: bar, values, curves, and keys; measures nothing itself."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import IO, Any

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from wgpu_nn.train.figures import binned, nbytes, number, span, sparkline
from wgpu_nn.train.history import EpochRecord
from wgpu_nn.train.keys import Keys
from wgpu_nn.train.progress import Snapshot, place

POINTS = 2048  # of the curve of step losses; when it is full, neighbours are averaged
WIDTH = 100  # columns at most
CURVES = 3  # metrics with a curve, the loss included
IDLE = 100  # times as long as a drawing takes nothing is drawn: it costs 1% at most, on a slow machine too
HELP = "q save and stop   s skip to the end of the epoch   p pause"
DIM, TRAIN, VALID, GOOD = "bright_black", "cyan", "magenta", "green"


class Dashboard:
    """A panel that is redrawn at updates, below a line for each epoch that stays; of short epochs, several at once.

    Importing this needs rich.
    """

    def __init__(self, stream: IO[str], console: Console | None = None) -> None:
        self._console = Console(file=stream, highlight=False) if console is None else console
        self._live: Live | None = None
        self._keys = Keys()
        self._records: list[EpochRecord] = []
        self._rows: list[Text] = []  # lines that wait for the next drawing
        self._now: Snapshot | None = None
        self._losses: list[float] = []
        self._per_point = 1  # steps that a point of the curve stands for
        self._waiting: list[float] = []
        self._next = 0.0  # when it may be drawn again
        self._better: dict[str, str | None] = {}

    def begin(self, better: Mapping[str, str | None]) -> None:
        self._better = {"loss": "lower", **better}
        self._keys.open()
        # Redrawn at updates alone: a thread that redraws would take time from the software adapter.
        self._live = Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._live.start()

    def update(self, now: Snapshot) -> None:
        self._waiting += now.losses
        while len(self._waiting) >= self._per_point:
            part, self._waiting = self._waiting[: self._per_point], self._waiting[self._per_point :]
            self._losses.append(math.fsum(part) / len(part))
            if len(self._losses) >= POINTS:
                self._losses = binned(self._losses, POINTS // 2)
                self._per_point *= 2
        first, self._now = self._now is None, now
        if first or time.perf_counter() >= self._next:
            self._draw()

    def epoch(self, record: EpochRecord) -> None:
        self._records.append(record)
        self._rows.append(_row(record))
        if time.perf_counter() >= self._next:
            self._draw()

    def note(self, text: str) -> None:
        self._rows.append(Text(text, style="yellow"))
        self._draw()

    def pressed(self) -> str:
        return self._keys.read().lower()

    def end(self) -> None:
        self._keys.close()
        if self._live is not None:
            self._draw()
            self._live.stop()
            self._live = None

    def _draw(self) -> None:
        """Draw the panel, print what waits above it, and say when to draw again."""
        begun = time.perf_counter()
        rows, self._rows = self._rows, []
        with self._console:  # which writes at the end, at once: what is printed brings the panel from before along
            if rows:
                self._console.print(*rows, sep="\n")
            if self._live is not None and self._now is not None:
                self._live.update(self.panel(self._now), refresh=True)
        done = time.perf_counter()
        self._next = done + IDLE * (done - begun)

    # --- what is drawn -----------------------------------------------------------------------------------------------
    def panel(self, now: Snapshot) -> Panel:
        """Return the panel of a snapshot."""
        width = min(self._console.width, WIDTH)
        parts: list[Any] = [self._bar(now, width), Text(), self._values(now), Text(), *self._curves(width)]
        parts.append(Text(_status(now), style=DIM))
        hint = HELP if self._keys.listening else "Ctrl-C saves and stops"
        return Panel(Group(*parts), title="training", subtitle=hint, border_style=DIM, width=width, padding=(0, 2))

    def _bar(self, now: Snapshot, width: int) -> Table:
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True, justify="right")
        if now.testing is None:
            done, colour, doing = now.batch / (now.batches or math.inf), TRAIN, place(now)
        else:
            done, colour, doing = now.testing, VALID, "validation"
        left = "" if now.seconds_left is None else f"   {span(now.seconds_left)} left"
        head = Text.assemble(("epoch ", DIM), (f"{now.epoch}/{now.epochs}", "bold"))
        bar = ProgressBar(total=1.0, completed=done, complete_style=colour, finished_style=colour)
        grid.add_row(head, bar, Text.assemble(doing, (left, "bold")))
        return grid

    def _values(self, now: Snapshot) -> Table:
        last = self._records[-1] if self._records else None
        table = Table(box=None, padding=(0, 3, 0, 0), header_style=DIM, pad_edge=False)
        table.add_column("")
        for head, style in (("now", "bold"), ("last train", TRAIN), ("last valid", VALID), ("best", GOOD)):
            table.add_column(head, justify="right", style=style)
        table.add_column("", style=DIM)
        names = dict.fromkeys([*now.values, *(last.train if last else ()), *(last.valid if last else ())])
        for name in names:
            best, epoch = self._best(name)
            table.add_row(
                name,
                number(now.values[name]) if name in now.values else "",
                number(last.train[name]) if last and name in last.train else "",
                number(last.valid[name]) if last and name in last.valid else "",
                "" if epoch == 0 else number(best),
                "" if epoch == 0 else f"epoch {epoch}",
            )
        return table

    def _best(self, name: str) -> tuple[float, int]:
        """Return the best value of an epoch, and its number; 0 where no way is better."""
        better = self._better.get(name)
        found = [(r.value(name), r.epoch) for r in self._records if math.isfinite(r.value(name))]
        if not found or better is None:
            return math.nan, 0
        return (min if better == "lower" else max)(found, key=lambda pair: pair[0])

    def _curves(self, width: int) -> list[Any]:
        grid = Table.grid(padding=(0, 2))
        room = max(width - 44, 12)
        rows: list[tuple[str, list[float], str]] = []
        if self._losses:
            rows.append(("loss by step", self._losses, TRAIN))
        names = list(self._records[-1].valid or self._records[-1].train) if self._records else []
        split = "valid" if self._records and self._records[-1].valid else "train"
        for name in names[:CURVES] if len(self._records) > 1 else []:
            style = VALID if split == "valid" else TRAIN
            rows.append((f"{split} {name}", [r.value(f"{split}.{name}") for r in self._records], style))
        for title, values, style in rows:
            finite = [v for v in values if math.isfinite(v)]
            ends = f"{number(finite[0])} to {number(finite[-1])}" if finite else ""
            columns = max(min(room // len(values), 6), 1)  # a few epochs are not a few blocks
            wide = [v for v in values for _ in range(columns)]
            grid.add_row(Text(title, style=DIM), Text(sparkline(wide, room), style=style), Text(ends, style=DIM))
        return [grid, Text()] if rows else []


def _status(now: Snapshot) -> str:
    """Return rate, pace, memory and launches as one line."""
    parts = ["" if now.lr is None else f"lr {number(now.lr)}", f"{now.items_per_s:,.0f} items/s"]
    if now.gpu_bytes is not None:
        parts.append(f"GPU memory {nbytes(now.gpu_bytes)}")
    if now.launches_per_step is not None:
        parts.append(f"{now.launches_per_step:.0f} launches/step")
    return "   ".join(part for part in parts if part)


def _row(record: EpochRecord) -> Text:
    """Return an epoch as a line of the terminal."""
    text = Text.assemble((f"epoch {record.epoch:>3}", "bold"))
    for title, values, style in (("train", record.train, TRAIN), ("valid", record.valid, VALID)):
        if values:
            text.append(f"   {title} ", style=DIM)
            text.append("  ".join(f"{name} {number(value)}" for name, value in values.items()), style=style)
    return text.append(f"   {span(record.seconds)}", style=DIM)
