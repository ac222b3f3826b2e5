"""What a run shows while it goes on, and the plain form of it: a line now and then; measures nothing itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Protocol

from wgpu_nn.train.figures import number, pairs, span
from wgpu_nn.train.history import EpochRecord

LINE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where a run is: in which epoch (from 1) and batch, the means of the epoch so far, the pace, the time left.

    ``seconds_left`` is None until it can be told. While the validation data run, ``testing`` is how much of them is
    done, 0 to 1. Launches and bytes in use are those of a GPU. ``losses`` are those of the steps since the last snapshot.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int | None  # None of a stream, whose length nobody knows
    values: Mapping[str, float] = field(default_factory=dict[str, float])
    items_per_s: float = 0.0
    seconds_left: float | None = None
    testing: float | None = None
    lr: float | None = None
    launches_per_step: float | None = None
    gpu_bytes: int | None = None
    losses: Sequence[float] = ()


class Progress(Protocol):
    """What the loop reports to. ``begin`` comes once before the rest, ``end`` once after it, whatever happens."""

    def begin(self, better: Mapping[str, str | None]) -> None:
        """Start to show; ``better`` says which way each metric is better, "higher" or "lower", if any."""
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

    def pressed(self) -> str:
        """Return the keys that were pressed since the last call: q saves and stops, s skips to the end of the epoch, p
        pauses and goes on."""
        ...

    def end(self) -> None:
        """Show nothing any more."""
        ...


def progress(stream: IO[str] | None = None) -> Progress:
    """Return what fits ``stream`` (standard output): a table in a notebook, a dashboard on a terminal, else plain lines.

    The dashboard needs rich; without it a terminal gets lines as well.
    """
    from wgpu_nn.train.notebook import Notebook, in_notebook

    if stream is None and in_notebook():
        return Notebook()
    out = sys.stdout if stream is None else stream
    if out.isatty():
        try:
            from wgpu_nn.train.dashboard import Dashboard

            return Dashboard(out)
        except ImportError:  # rich comes with the extra `train`; a run need not fail for want of a dashboard
            pass
    return Lines(out)


class Silent:
    """Shows nothing."""

    def begin(self, better: Mapping[str, str | None]) -> None: ...

    def update(self, now: Snapshot) -> None: ...

    def epoch(self, record: EpochRecord) -> None: ...

    def note(self, text: str) -> None: ...

    def pressed(self) -> str:
        return ""

    def end(self) -> None: ...


class Lines:
    """Plain lines: one at the start, then one every ``seconds``, and one for each epoch."""

    def __init__(self, stream: IO[str], seconds: float = LINE_SECONDS) -> None:
        self._stream, self._seconds = stream, seconds
        self._last: float | None = None

    def begin(self, better: Mapping[str, str | None]) -> None: ...

    def update(self, now: Snapshot) -> None:
        if self._last is None or time.perf_counter() - self._last >= self._seconds:
            self.note(line(now))
            self._last = time.perf_counter()

    def epoch(self, record: EpochRecord) -> None:
        self.note(row(record))

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def pressed(self) -> str:
        return ""

    def end(self) -> None: ...


def line(now: Snapshot) -> str:
    """Return a snapshot as a line: where, values, rate, pace, time left."""
    doing = place(now) if now.testing is None else f"validation {now.testing:.0%}"
    rate = "" if now.lr is None else f"  lr {number(now.lr)}"
    left = "" if now.seconds_left is None else f"  {span(now.seconds_left)} left"
    return f"epoch {now.epoch}/{now.epochs}  {doing}  {pairs(now.values)}{rate}  {now.items_per_s:,.0f} items/s{left}"


def place(now: Snapshot) -> str:
    """Return which batch it is: batch 45/141, or batch 45 of a stream."""
    return f"batch {now.batch}" + (f"/{now.batches}" if now.batches else "")


def row(record: EpochRecord) -> str:
    """Return an epoch as a line."""
    valid = f"  |  valid {pairs(record.valid)}" if record.valid else ""
    return (
        f"epoch {record.epoch} done  |  train {pairs(record.train)}{valid}  |  "
        f"{span(record.seconds)}, {record.items_per_s:,.0f} items/s"
    )
