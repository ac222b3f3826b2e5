"""``wgpu-nn report RUN...``: makes one HTML page of run folders, and a picture of their curves."""

from __future__ import annotations

import argparse
from pathlib import Path

from wgpu_nn.cli.command import Command
from wgpu_nn.errors import ConfigError


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``wgpu-nn report``."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="the folder of a run; several are compared")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (report.html in the first run's folder)")
    parser.add_argument("--png", type=Path, metavar="FILE", help="save a picture of the curves as well")


def run(args: argparse.Namespace) -> int:
    """Write the page, and print where; nothing is written if a folder is no run."""
    from wgpu_nn import report
    from wgpu_nn.files import write_atomic

    out: Path = args.out if args.out is not None else args.runs[0] / "report.html"
    for option, path in (("--out", out), ("--png", args.png)):
        if path is not None and path.is_dir():
            raise ConfigError(f"report: expected a file for {option}, got the folder {path}; name a file in it")
    runs = report.read_runs(args.runs)
    contents: dict[Path, bytes] = {out: report.page(runs).encode()}
    if args.png is not None:
        contents[args.png] = report.draw(", ".join(r.name for r in runs), report.charts(runs))
    for path, content in contents.items():
        write_atomic(path, content)
        print(path)
    return 0


COMMAND = Command(
    name="report",
    help="make one HTML page of training runs",
    description="Make one self-contained HTML page of the folders of training runs, which may still go on: curves, "
    "confusion matrix, mistakes, config, environment, timings. Several runs are laid over each other.",
    arguments=arguments,
    run=run,
)
