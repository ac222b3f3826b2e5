"""Tables of a report: what runs are, how they ended, what they were measured at; all text is escaped here."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

from wgpu_nn.report.curves import metric_names
from wgpu_nn.report.run import SPLITS, Run, number

# What of run.json is shown elsewhere than in the table of the environment.
ELSEWHERE = ("state", "message", "model", "metrics", "monitor", "started", "ended")
MISSING = "–"


def text(value: object) -> str:
    """Return a value as escaped text; objects and lists as JSON."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: MISSING}[value]
    if isinstance(value, float):
        return value_text(value)
    return html.escape(json.dumps(value) if isinstance(value, list | dict) else str(value))


def value_text(value: float | None) -> str:
    """Return a measured number in six digits."""
    return MISSING if value is None else f"{value:.6g}"


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested objects as one: {"model": {"classes": 10}} as {"model.classes": 10}."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, dict) and inner:
            found |= flat(cast(Mapping[str, Any], inner), f"{name}.")
        else:
            found[name] = inner
    return found


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """Return a table of cells that are HTML already; the columns after the first are numbers, or else long texts."""
    style = "n" if numbers else "long"
    top = "".join(f"<th{f' class={style}' if i and numbers else ''}>{cell}</th>" for i, cell in enumerate(head))
    lines = [
        "".join(f"<th>{cell}</th>" if i == 0 else f"<td class={style}>{cell}</td>" for i, cell in enumerate(row))
        for row in rows
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def comparison(runs: Sequence[Run], found: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of named values of each run; of several runs those that differ, and folded the others."""
    values = [flat(f) for f in found]
    names = list({name: 0 for v in values for name in v})
    head = ["", *(html.escape(run.name) for run in runs)]

    def rows(chosen: Sequence[str]) -> list[list[str]]:
        return [[html.escape(name), *(text(v[name]) if name in v else MISSING for v in values)] for name in chosen]

    if len(runs) == 1:
        return table(["", ""], rows(names), numbers=False)
    differ = [n for n in names if any(v.get(n, MISSING) != values[0].get(n, MISSING) for v in values[1:])]
    same = [n for n in names if n not in differ]
    parts = [table(head, rows(differ), numbers=False) if differ else '<p class="soft">No difference.</p>']
    if same:
        inside = table(["", "all runs"], [row[:2] for row in rows(same)], numbers=False)
        parts.append(f"<details><summary>{len(same)} that are equal</summary>{inside}</details>")
    return "".join(parts)


def card(run: Run) -> str:
    """Return what became of a run: its state, its best epoch, its last values."""
    state = html.escape(run.state)
    parts = [f'<h3>{html.escape(run.name)} <span class="state {state}">{state}</span></h3>']
    if run.facts.get("message"):
        parts.append(f'<p class="message {state}">{text(run.facts["message"])}</p>')
    done, planned = len(run.epochs), run.facts.get("epochs")
    parts.append(f"<p>{done}{f' of {text(planned)}' if planned else ''} epochs, {_steps(run):,} steps{_took(run)}</p>")
    best = run.best(run.monitor)
    if best is not None:
        name = run.monitor.removeprefix(f"{best[0]}.")
        parts.append(f"<p>Best epoch {best[1]}: {html.escape(f'{best[0]} {name}')} {value_text(best[2])}</p>")
    parts.append(f'<p class="soft">{_times(run)}</p>')
    parts.append(f'<p class="soft message">{html.escape(str(run.path))}</p>')
    return f'<div class="card">{"".join(parts)}</div>'


def bests(runs: Sequence[Run]) -> str:
    """Return a table of what was measured: best and last value of each metric and run."""
    rows: list[list[str]] = []
    for name in metric_names(runs):
        for run in runs:
            best = run.best(name)
            for split in SPLITS:
                xs, ys = run.series(split, name)
                if not xs:
                    continue
                finite = [y for y in ys if math.isfinite(y)]
                at = best if best is not None and best[0] == split else run.best(f"{split}.{name}")
                label = f"{name}, {split}" if len(runs) == 1 else f"{name}, {split}, {run.name}"
                best_of = [value_text(at[2]), str(at[1])] if at is not None else [MISSING, MISSING]
                lowest = [value_text(min(finite, default=None)), value_text(max(finite, default=None))]
                rows.append([html.escape(label), *best_of, *lowest, value_text(ys[-1])])
    return table(["", "best", "in epoch", "lowest", "highest", "last"], rows)


def timings(runs: Sequence[Run]) -> str:
    """Return a table of how long epochs took, how fast items went by, and what steps cost."""
    rows: list[list[str]] = []
    for run in runs:
        seconds = _column(run, "seconds")
        items, launches, memory = (_column(run, n) for n in ("items_per_s", "launches_per_step", "gpu_bytes"))
        rows.append(
            [
                html.escape(run.name),
                f"{sum(seconds):,.2f}" if seconds else MISSING,
                f"{sum(seconds) / len(seconds):,.3f}" if seconds else MISSING,
                f"{sorted(items)[len(items) // 2]:,.0f}" if items else MISSING,
                f"{launches[-1]:.4g}" if launches else MISSING,
                f"{max(memory) / 2**20:,.1f}" if memory else MISSING,
            ]
        )
    return table(["", "seconds", "seconds an epoch", "items/s, median", "launches a step", "GPU memory, MiB"], rows)


def epochs(run: Run) -> str:
    """Return a table of all that was measured, epoch by epoch."""
    names = [
        (split, name) for split in ("train", "valid") for name in metric_names([run]) if run.series(split, name)[0]
    ]
    others = [n for n in ("lr", "seconds", "items_per_s") if _column(run, n)]
    rows = [
        [
            text(e["epoch"]),
            text(e["step"]),
            *(value_text(number(e.get(split, {}).get(name))) for split, name in names),
            *(value_text(number(e.get(n))) for n in others),
        ]
        for e in run.epochs
    ]
    heads = [html.escape(f"{split} {name}") for split, name in names]
    return table(["epoch", "step", *heads, *(n.replace("items_per_s", "items/s") for n in others)], rows)


def environment(run: Run) -> dict[str, Any]:
    """Return what run.json says of the machine, the seed, the optimizer and the like."""
    return {key: value for key, value in run.facts.items() if key not in ELSEWHERE}


def _column(run: Run, name: str) -> list[float]:
    found = (number(e.get(name)) for e in run.epochs)
    return [v for v in found if v is not None and math.isfinite(v)]


def _steps(run: Run) -> int:
    return max((int(line["step"]) for line in (*run.steps[-1:], *run.epochs[-1:])), default=0)


def _time(value: object) -> datetime | None:
    """Return a time of run.json, in UTC unless it says where; None for what is no time."""
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _times(run: Run) -> str:
    """Return when a run began and ended; of one that goes on, when it was last heard of."""
    started, ended = (_time(run.facts.get(name)) for name in ("started", "ended"))
    last = None if run.written is None else datetime.fromtimestamp(run.written, UTC)
    parts = [("started", started), ("ended", ended) if ended is not None else ("last line written", last)]
    return ", ".join(f"{what} {at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" for what, at in parts if at is not None)


def _took(run: Run) -> str:
    """Return how long a run went on by its own clock, if it says so: ", 1:02:03 h"."""
    started, ended = (_time(run.facts.get(name)) for name in ("started", "ended"))
    return "" if started is None or ended is None else f", {ended - started} h"
