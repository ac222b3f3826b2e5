"""A run in a notebook: an HTML table that updates in place, without widgets; measures nothing itself."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from html import escape
from typing import Any

from wgpu_nn.train.figures import nbytes, number, span
from wgpu_nn.train.history import EpochRecord
from wgpu_nn.train.progress import Snapshot, line

SHOWN = 30  # rows of the table; the log has all of them


def in_notebook() -> bool:
    """Say whether a notebook's kernel runs this process. IPython is not imported for that."""
    loaded = sys.modules.get("IPython")
    shell = None if loaded is None else loaded.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


class Notebook:
    """A table of epochs and a line below it, in one output that is replaced; raises ImportError without IPython."""

    def __init__(self) -> None:
        from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

        self._html: Any = HTML
        self._display: Any = display
        self._handle: Any = None
        self._records: list[EpochRecord] = []
        self._notes: list[str] = []
        self._now: Snapshot | None = None

    def begin(self, better: Mapping[str, str | None]) -> None:
        self._handle = self._display(self._html(""), display_id=True)

    def update(self, now: Snapshot) -> None:
        self._now = now
        self._draw()

    def epoch(self, record: EpochRecord) -> None:
        self._records.append(record)
        self._now = None
        self._draw()

    def note(self, text: str) -> None:
        self._notes.append(text)
        self._draw()

    def pressed(self) -> str:
        return ""

    def end(self) -> None:
        self._now = None
        self._draw()

    def _draw(self) -> None:
        self._handle.update(self._html(page(self._records, self._now, self._notes)))


def page(records: list[EpochRecord], now: Snapshot | None, notes: list[str]) -> str:
    """Return the HTML of a run: a table of its last epochs, notes, and a bar with the present values."""
    parts = [f"<div>{escape(text)}</div>" for text in notes]
    if records:
        trained = list(records[0].train)
        tested = list(records[0].valid)
        heads = ["epoch", *(f"train {n}" for n in trained), *(f"valid {n}" for n in tested), "lr", "time", "items/s"]
        rows = [
            [
                str(r.epoch),
                *(number(r.train[n]) for n in trained),
                *(number(r.valid[n]) for n in tested),
                number(r.lr),
                span(r.seconds),
                f"{r.items_per_s:,.0f}",
            ]
            for r in records[-SHOWN:]
        ]
        head = "".join(f"<th style='text-align:right'>{escape(h)}</th>" for h in heads)
        body = "".join(
            "<tr>" + "".join(f"<td style='text-align:right'>{escape(c)}</td>" for c in cells) + "</tr>"
            for cells in rows
        )
        parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    if now is not None:
        done = now.batch / (now.batches or math.inf) if now.testing is None else now.testing
        memory = "" if now.gpu_bytes is None else f"  GPU {nbytes(now.gpu_bytes)}"
        parts.append(f"<progress value='{done:.4f}' max='1' style='width:20em'></progress>")
        parts.append(f"<div style='font-family:monospace'>{escape(line(now) + memory)}</div>")
    return "".join(parts)
