"""Puts a report together as one HTML page that loads nothing: neither scripts, nor styles, nor images from elsewhere."""

from __future__ import annotations

import html
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import wgpu_nn
from wgpu_nn.report import findings, svg, tables
from wgpu_nn.report.curves import Chart, Line, charts
from wgpu_nn.report.run import Run

HERE = Path(__file__).parent
# The page says itself that it may load nothing.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(runs: Sequence[Run]) -> str:
    """Return the page of one run, or of several beside each other."""
    title = ", ".join(run.name for run in runs)
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    body = "".join(f"<section><h2>{html.escape(name)}</h2>{inside}</section>" for name, inside in _sections(runs))
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style}</style></head>\n"
        f'<body><h1>{html.escape(title)}</h1><div class="cards">{"".join(map(tables.card, runs))}</div>\n'
        f'{body}\n<footer class="soft">wgpu-nn {html.escape(wgpu_nn.__version__)}, {made}</footer>\n'
        f"<script>{script}</script></body></html>\n"
    )


def _sections(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Return title and HTML of each section that has something to say."""
    found = [("Curves", _curves(charts(runs)))]
    if any(run.epochs for run in runs):
        found.append(("Values", tables.bests(runs)))
    for run in runs:
        of = "" if len(runs) == 1 else f" of {run.name}"
        when = "" if run.details_of is None else f", epoch {run.details_of}"
        found.append((f"Confusion{of}{when}", findings.matrices(run)))
        found.append((f"Classes{of}{when}", findings.classes(run)))
        diagrams = findings.reliability(run)
        found.append((f"Calibration{of}{when}", _curves(diagrams) if diagrams else ""))
        if run.samples is not None and len(run.samples.target):
            found.append((f"Mistakes{of}", findings.samples(run, run.samples)))
    if any(run.config for run in runs):
        found.append(("Config", tables.comparison(runs, [run.config for run in runs])))
    if any(run.epochs for run in runs):
        found.append(("Time", tables.timings(runs)))
    if any(run.facts for run in runs):
        found.append(("Environment", tables.comparison(runs, [tables.environment(run) for run in runs])))
    models = {run.name: tables.text(run.facts["model"]) for run in runs if run.facts.get("model")}
    if len(set(models.values())) == 1 < len(runs) == len(models):
        models = {"all runs": models[runs[0].name]}
    for name, model in models.items():
        found.append((f"Model{'' if len(runs) == 1 else f' of {name}'}", f"<pre>{model}</pre>"))
    for run in runs:
        if run.epochs:
            inside = f"<details><summary>{len(run.epochs)} epochs</summary>{tables.epochs(run)}</details>"
            found.append((f"Epochs{'' if len(runs) == 1 else f' of {run.name}'}", inside))
    return [(name, inside) for name, inside in found if inside]


def _curves(found: Sequence[Chart]) -> str:
    if not found:
        return '<p class="soft">Nothing was measured yet.</p>'
    return f'<div class="charts">{"".join(map(_figure, found))}</div>'


def _figure(chart: Chart) -> str:
    scale = " (logarithmic)" if chart.logarithmic else ""
    legend = "".join(f"<span>{_swatch(line)}{html.escape(line.said(chart.x))}</span>" for line in chart.lines)
    return (
        f'<figure><h3>{html.escape(chart.title)}<span class="soft">{scale}</span></h3>'
        f'{svg.draw(chart)}<figcaption class="legend">{legend}</figcaption></figure>'
    )


def _swatch(line: Line) -> str:
    style = f"line c{line.colour % svg.COLOURS}{' dashed' if line.dashed else ''}"
    return f'<svg viewBox="0 0 26 10" aria-hidden="true"><path class="{style}" d="M1 5H25"/></svg>'
