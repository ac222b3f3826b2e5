"""Shows and saves what benchmarks found: a plain table, coloured where rich is installed, and JSON."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import wgpu_nn
from wgpu_nn.bench import plot
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


def share(value: float | None) -> str:
    """Return a part of a whole: 81%, 3.2%."""
    if value is None:
        return NONE
    return f"{value:.0%}" if value >= 0.0995 else f"{value:.1%}"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table that is aligned as text too: names at the left, numbers at the right."""
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows)]
    line = lambda cells: (
        "| "
        + " | ".join(cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(cells, widths)))
        + " |"
    )
    rule = "|".join(["", "-" * (widths[0] + 2), *("-" * (w + 1) + ":" for w in widths[1:]), ""])
    return [line(heads), rule, *(line(row) for row in rows)]


def table(heads: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table, two for the heads; the first column stands left, the others right.

    A row of two cells where there are more columns is a name and a remark, which is wrapped; a row of one is a title.
    """
    full = [row for row in rows if len(row) == len(heads)]
    names = max(len(row[0]) for row in [*heads[:1], *rows] if len(row) > 1)
    widths = [max(len(c) for c in (*heads[n], *(r[n] for r in full))) for n in range(1, len(heads))]
    lines: list[str] = []
    for cells in (*([head[n] for head in heads] for n in range(2)), *rows):
        if len(cells) == 1:
            lines.append(cells[0])
            continue
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


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say where findings go, a plot among them."""
    outputs(parser)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw what was found, as a PNG")


def outputs(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say where findings go."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="save what was found, raw rounds and all")
    parser.add_argument("--table", action="store_true", help="print a short Markdown table, to be pasted into an issue")


def check_outputs(args: argparse.Namespace) -> None:
    """Raise, before minutes are spent, if what was found cannot be put down as asked."""
    writable(args.json, "--json")
    writable(args.plot, "--plot")
    if args.plot is not None:
        plot.check()


def deliver(
    args: argparse.Namespace,
    found: dict[str, Any],
    lines: Sequence[str],
    markdown: Sequence[str],
    chart: Callable[[], plot.Chart],
) -> None:
    """Print the report, or the short table if that is asked for, and write the files."""
    if args.table:
        print("\n".join(markdown))
    else:
        show(lines, bold=1)
    if args.json is not None:
        save(args.json, found)
    if args.plot is not None:
        plot.draw(chart(), args.plot)


def writable(path: Path | None, option: str = "--json", command: str = "bench") -> None:
    """Raise if there is no folder for a file."""
    if path is not None and not path.parent.is_dir():
        raise ConfigError(
            f"{command}: expected a folder {path.parent} for {option}, got none; make it, or choose another file"
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
