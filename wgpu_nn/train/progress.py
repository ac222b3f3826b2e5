"""What a run shows while it goes on: a bar on a terminal, a line now and then elsewhere; measures nothing itself."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import IO, Any, Protocol

from wgpu_nn.train.checkpoint import EpochRecord

LINE_SECONDS = 10.0

HEADER = f"{'epoch':>7}{'train loss':>12}{'train acc':>11}{'test loss':>12}{'test acc':>11}{'time':>10}{'images/s':>11}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a run is: in which epoch (from 1) and batch, the means of the epoch so far, the pace, the time left.

    ``seconds_left`` is None until it can be told. While the test set runs, ``testing`` is how much of it is done, 0 to 1.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    accuracy: float
    images_per_s: float
    seconds_left: float | None
    testing: float | None = None


class Progress(Protocol):
    """What the loop reports to. ``begin`` comes once before the rest, ``end`` once after it, whatever happens."""

    def begin(self) -> None:
        """Start to show."""
        ...

    def update(self, now: Snapshot) -> None:
        """Show where the run is."""
        ...

    def epoch(self, record: EpochRecord) -> None:
        """Show what an epoch came to, at its end."""
        ...

    def note(self, text: str) -> None:
        """Show a line of text."""
        ...

    def end(self) -> None:
        """Show nothing any more."""
        ...


def progress(stream: IO[str] | None = None) -> Progress:
    """Return a bar if ``stream`` (standard output) is a terminal and rich is installed, else plain lines."""
    out = sys.stdout if stream is None else stream
    if out.isatty():
        try:
            return Bar(out)
        except ImportError:  # rich comes with the extra `train`; a run need not fail for want of a bar
            pass
    return Lines(out)


class Silent:
    """Shows nothing."""

    def begin(self) -> None: ...

    def update(self, now: Snapshot) -> None: ...

    def epoch(self, record: EpochRecord) -> None: ...

    def note(self, text: str) -> None: ...

    def end(self) -> None: ...


class Lines:
    """Plain lines: one at the start, then one every ``seconds``, and a row of a table for each epoch."""

    def __init__(self, stream: IO[str], seconds: float = LINE_SECONDS) -> None:
        self._stream, self._seconds = stream, seconds
        self._last: float | None = None
        self._table = False

    def begin(self) -> None: ...

    def update(self, now: Snapshot) -> None:
        if self._last is None or time.perf_counter() - self._last >= self._seconds:
            self.note(line(now))
            self._last = time.perf_counter()

    def epoch(self, record: EpochRecord) -> None:
        if not self._table:
            self.note(HEADER)
            self._table = True
        self.note(row(record))

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def end(self) -> None: ...


class Bar:
    """A progress bar by rich, and a table above it that grows by a row each epoch. Raises ImportError without rich."""

    def __init__(self, stream: IO[str]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._console: Any = Console(file=stream, highlight=False, soft_wrap=True)
        # Redrawn at updates alone: a thread that redraws would take time from the software adapter.
        self._bar: Any = RichProgress(
            TextColumn("{task.fields[place]}"),
            BarColumn(bar_width=18),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )
        self._task: Any = None
        self._table = False

    def begin(self) -> None:
        self._bar.start()

    def update(self, now: Snapshot) -> None:
        fields = {"place": f"epoch {now.epoch}/{now.epochs}", "figures": figures(now)}
        done, total = (now.batch, now.batches) if now.testing is None else (now.testing, 1.0)
        if self._task is None:
            self._task = self._bar.add_task("", total=total, completed=done, **fields)
        self._bar.update(self._task, total=total, completed=done, refresh=True, **fields)

    def epoch(self, record: EpochRecord) -> None:
        if not self._table:
            self.note(HEADER)
            self._table = True
        self.note(row(record))

    def note(self, text: str) -> None:
        self._console.print(text, markup=False)

    def end(self) -> None:
        self._bar.stop()


def figures(now: Snapshot) -> str:
    """Return loss, accuracy, pace and time left as one text."""
    left = "" if now.seconds_left is None else f"  {span(now.seconds_left)} left"
    doing = "" if now.testing is None else "  testing"
    return f"loss {now.loss:.4f}  acc {now.accuracy:6.2%}  {now.images_per_s:,.0f} images/s{left}{doing}"


def line(now: Snapshot) -> str:
    """Return a snapshot as a line of its own."""
    return f"epoch {now.epoch}/{now.epochs}  batch {now.batch}/{now.batches}  {figures(now)}"


def row(record: EpochRecord) -> str:
    """Return an epoch as a row under HEADER."""
    return (
        f"{record.epoch:>7}{record.train_loss:>12.4f}{record.train_accuracy:>11.2%}"
        f"{record.test_loss:>12.4f}{record.test_accuracy:>11.2%}{span(record.seconds):>10}{record.images_per_s:>11,.0f}"
    )


def span(seconds: float) -> str:
    """Return a time as people say it: 8.4 s, 2:05 min, 1:30 h."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"
