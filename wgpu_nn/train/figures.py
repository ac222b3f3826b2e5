"""Numbers of a run as people read them: values, times, bytes, curves of blocks; knows no terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

BLOCKS = "▁▂▃▄▅▆▇█"


def number(value: float) -> str:
    """Return a value in four digits or so: 0.8312, 12.35, 1.2e-05."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.2e}"


def span(seconds: float) -> str:
    """Return a time as people say it: 8.4 s, 2:05 min, 1:30 h."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"


def nbytes(count: int) -> str:
    """Return a size in bytes: 512 B, 3.4 MiB."""
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1000 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"


def pairs(values: Mapping[str, float]) -> str:
    """Return names with values as one text: loss 0.3000  accuracy 0.9050."""
    return "  ".join(f"{name} {number(value)}" for name, value in values.items())


def sparkline(values: Sequence[float], width: int) -> str:
    """Return a curve of one block a column, the last value at the right; what is not finite leaves a gap.

    More values than columns are averaged by column.
    """
    columns = [v for v in binned(values, width)]
    finite = [v for v in columns if math.isfinite(v)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((v - low) * scale)] if math.isfinite(v) else " " for v in columns)


def binned(values: Sequence[float], width: int) -> list[float]:
    """Return at most ``width`` values, each the mean of its equal share of ``values``; NaN of none that is finite."""
    if len(values) <= width:
        return list(values)
    out: list[float] = []
    for i in range(width):
        part = values[i * len(values) // width : (i + 1) * len(values) // width]
        finite = [v for v in part if math.isfinite(v)]
        out.append(math.fsum(finite) / len(finite) if finite else math.nan)
    return out
