"""Shows and saves what benchmarks found: a plain table, coloured where rich is installed, and JSON."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import wgpu_nn
from wgpu_nn.errors import ConfigError
from wgpu_nn.tensor import Device

NONE = "-"
WIDTH = 110


def count(value: float | None) -> str:
    """Return a number as a table has it: 27,543; 1.23; 12.3M."""
    if value is None:
        return NONE
    if value >= 1e6:
        return f"{value / 1e6:.3g}M"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def ratio(value: float | None) -> str:
    """Return how many times faster: 274x, 4.24x, 0.25x."""
    if value is None:
        return NONE
    digits = ".0f" if value >= 100 else ".3g" if value >= 1 else ".2f"
    return f"{value:{digits}}x"


def table(heads: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, two for the heads; the first column stands left, the others right.

    A row of two cells where there are more columns is a name and a remark, which is wrapped.
    """
    full = [row for row in rows if len(row) == len(heads)]
    names = max(len(row[0]) for row in [*heads[:1], *rows])
    widths = [max(len(c) for c in (*heads[n], *(r[n] for r in full))) for n in range(1, len(heads))]
    lines: list[str] = []
    for cells in (*([head[n] for head in heads] for n in range(2)), *rows):
        if len(cells) == len(heads):
            rest = [cell.rjust(width) for cell, width in zip(cells[1:], widths)]
        else:
            rest = textwrap.wrap(cells[1], WIDTH - names - 2)
            rest = [f"\n{' ' * (names + 2)}".join(rest)]
        lines += "  ".join((cells[0].ljust(names), *rest)).rstrip().split("\n")
    return lines


def show(lines: Sequence[str], bold: int = 0) -> None:
    """Print lines; on a terminal with rich the first ``bold`` are bold, and FAILED is red."""
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        print("\n".join(lines))
        return
    console = Console(soft_wrap=True)
    for n, line in enumerate(lines):
        text = Text(line, style="bold" if n < bold else "")
        text.highlight_words(["FAILED"], "bold red")
        console.print(text)


def progress(text: str) -> None:
    """Say on stderr what is being done, as some of it takes a while."""
    print(text, file=sys.stderr, flush=True)


def environment(device: Device) -> dict[str, Any]:
    """Return what numbers depend on: the adapter, its driver, versions, the machine, the date (UTC)."""
    adapter = device.gpu.adapter
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "adapter": {"name": adapter.name, "kind": adapter.kind, "api": adapter.api, "driver": adapter.driver},
        "versions": {
            "wgpu_nn": wgpu_nn.__version__,
            "wgpu": importlib.metadata.version("wgpu"),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
    }


def writable(path: Path | None) -> None:
    """Raise, before minutes are spent, if there is no folder for a file."""
    if path is not None and not path.parent.is_dir():
        raise ConfigError(
            f"bench: expected a folder {path.parent} for --json, got none; make it, or choose another file"
        )


def save(path: Path, found: dict[str, Any]) -> None:
    """Write JSON; NaN and infinities become null, as JSON has none."""
    try:
        path.write_text(json.dumps(_finite(found), indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise ConfigError(f"bench: cannot write {path}: {error.strerror}; choose another --json file") from error


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
