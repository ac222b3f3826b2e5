"""What a run says of its mistakes: confusion matrices, values of classes, reliability, samples that it got wrong."""

from __future__ import annotations

import html

import numpy as np

from wgpu_nn.report import picture
from wgpu_nn.report.curves import Chart, Line
from wgpu_nn.report.run import Run, Samples
from wgpu_nn.report.tables import table, value_text

LARGEST = 30  # classes of a matrix that is shown as a table
PAIRS = 8  # confusions to name
SHOWN = 64  # samples


def matrices(run: Run) -> str:
    """Return the confusion matrices of a run, with the confusions that are most frequent; "" if it has none."""
    found = {name.removesuffix(".matrix"): m for name, m in run.details.items() if name.endswith(".matrix")}
    square = {n: m.astype(np.float64) for n, m in found.items() if m.ndim == 2 and m.shape[0] == m.shape[1] and m.size}
    parts = [_matrix(run, name, m) for name, m in square.items() if np.isfinite(m).all() and (m >= 0).all()]
    return f'<div class="matrices">{"".join(parts)}</div>' if parts else ""


def classes(run: Run) -> str:
    """Return a table of the values of classes that metrics gave; "" if there are none."""
    found = {name.removesuffix(".per_class"): v for name, v in run.details.items() if name.endswith(".per_class")}
    rows: list[list[str]] = []
    longest = max((v.size for v in found.values() if v.ndim == 1), default=0)
    columns = {name: v for name, v in found.items() if v.ndim == 1 and v.size == longest}
    support = next((run.details[f"{n}.support"] for n in columns if f"{n}.support" in run.details), None)
    for c in range(longest):
        counts = [f"{support[c]:,.0f}"] if support is not None and support.shape == (longest,) else []
        rows.append([html.escape(run.label(c)), *(value_text(float(v[c])) for v in columns.values()), *counts])
    if not rows:
        return ""
    head = ["class", *(html.escape(n) for n in columns), *(["targets"] if len(rows[0]) > len(columns) + 1 else [])]
    return table(head, rows)


def reliability(run: Run) -> list[Chart]:
    """Return a reliability diagram for each metric that gave confidence and accuracy of bins."""
    found: list[Chart] = []
    for name in (n.removesuffix(".confidence") for n in run.details if n.endswith(".confidence")):
        confidence, accuracy = run.details[f"{name}.confidence"], run.details.get(f"{name}.accuracy")
        if accuracy is None or accuracy.shape != confidence.shape or confidence.ndim != 1:
            continue
        there = np.isfinite(confidence) & np.isfinite(accuracy)
        if not there.any():
            continue
        measured = Line("accuracy", 0, False, confidence[there].tolist(), accuracy[there].tolist())
        perfect = Line("calibrated", 7, True, [0.0, 1.0], [0.0, 1.0])
        found.append(Chart(f"{name}: accuracy by confidence", "confidence", [measured, perfect]))
    return found


def samples(run: Run, found: Samples) -> str:
    """Return items that were taken for another class: as images, or else their first numbers."""
    images = picture.pixels(found.inputs[:SHOWN])
    parts: list[str] = []
    for i in range(min(len(found.target), SHOWN)):
        target, predicted = (html.escape(run.label(x[i])) for x in (found.target, found.predicted))
        said = f"{target} taken for <b>{predicted}</b><br>{_score(found.score[i])}"
        if images is None:
            numbers = ", ".join(f"{v:.4g}" for v in _numbers(found.inputs[i]))
            shown = f"<code>{html.escape(numbers)}</code>"
        else:
            shown = f'<img src="{picture.data_uri(images[i])}" alt="{target}, taken for {predicted}">'
        parts.append(f"<figure>{shown}<figcaption>{said}</figcaption></figure>")
    return f'<div class="samples">{"".join(parts)}</div>'


def _score(score: np.ndarray) -> str:
    value = float(np.asarray(score, np.float64).reshape(-1)[0]) if np.size(score) else float("nan")
    return f'<span class="soft">score {value:.3g}</span>'


def _numbers(item: np.ndarray) -> list[float]:
    flat = np.asarray(item).reshape(-1)
    return flat[:12].astype(np.float64).tolist() if flat.dtype.kind in "fiub" else []


def _matrix(run: Run, name: str, counts: np.ndarray) -> str:
    title = f"<h3>{html.escape(name)}</h3>"
    of_row = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shown = _cells(run, counts, of_row) if len(counts) <= LARGEST else _heat(of_row)
    said = (
        '<p class="soft">A row for each target, a column for what it was taken for; shades are shares of the row.</p>'
    )
    return f"<div>{title}{shown}{said}</div>{_most_confused(run, counts, of_row)}"


def _cells(run: Run, counts: np.ndarray, of_row: np.ndarray) -> str:
    head = "".join(f"<th>{html.escape(run.label(c))}</th>" for c in range(len(counts)))
    rows: list[str] = []
    for r, row in enumerate(counts):
        cells: list[str] = []
        for c, count in enumerate(row):
            # The rare mistakes are what one looks for: their shades grow with the root.
            shade = of_row[r, c] if r == c else of_row[r, c] ** 0.5
            styles = [
                *(["hit"] if r == c else []),
                *(["deep"] if shade > 0.6 else []),
                *(["none"] if not count else []),
            ]
            cells.append(f'<td class="{" ".join(styles)}" style="--v:{shade:.3f}">{_count(count)}</td>')
        rows.append(f"<tr><th>{html.escape(run.label(r))}</th>{''.join(cells)}</tr>")
    return (
        f'<div class="wide"><table class="matrix"><thead><tr><th></th>{head}</tr></thead>{"".join(rows)}</table></div>'
    )


def _count(value: np.generic) -> str:
    """Return a count, or a share where a matrix has these."""
    number = float(value)
    return f"{number:,.0f}" if number == round(number) else f"{number:.3g}"


def _heat(of_row: np.ndarray) -> str:
    """Return a matrix of many classes as an image, a pixel a cell: brighter is more."""
    grey = np.round(255 * np.sqrt(np.clip(of_row, 0, 1))).astype(np.uint8)[..., None]
    return f'<img class="heat" alt="confusion matrix" src="{picture.data_uri(grey)}">'


def _most_confused(run: Run, counts: np.ndarray, of_row: np.ndarray) -> str:
    wrong = counts * (1 - np.eye(len(counts)))
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    places: list[tuple[int, int]] = [(int(i) // len(counts), int(i) % len(counts)) for i in order]
    rows = [
        [html.escape(f"{run.label(r)} taken for {run.label(c)}"), _count(counts[r, c]), f"{100 * of_row[r, c]:.1f}%"]
        for r, c in places
        if wrong[r, c] > 0
    ]
    if not rows:
        return '<p class="soft">No item was taken for another class.</p>'
    return f"<div><h3>Most frequent mistakes</h3>{table(['', 'items', 'of the class'], rows)}</div>"
