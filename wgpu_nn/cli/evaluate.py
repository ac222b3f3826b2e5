"""``wgpu-nn eval RUN``: loss and metrics of a run's model, on its own data or others."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from wgpu_nn.cli.command import Command

if TYPE_CHECKING:
    from wgpu_nn.runs.saved import Which


def which(text: str) -> Which:
    """Return which checkpoint is meant: best, last, or that of a step."""
    if text == "best" or text == "last":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected best, last or a step, got {text!r}")
    return int(text)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which model it is, and where it runs."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the folder of the run")
    parser.add_argument(
        "--checkpoint", type=which, default="best", metavar="WHICH", help="best, last or a step that is saved (best)"
    )
    parser.add_argument("--device", metavar="NAME", help="wgpu, wgpu:<index or name>, numpy (the run's own)")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``wgpu-nn eval``."""
    add_model(parser)
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--split", choices=["valid", "train"], default="valid", help="of the run's own data (valid)")
    data.add_argument("--data", metavar="PATH", help="other data of the same kind, with targets, all of them")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the values."""
    from wgpu_nn.runs import SavedRun
    from wgpu_nn.train.log import plain

    saved = SavedRun.open(args.run_folder, args.device)
    items = saved.items(args.split, args.data)
    path = saved.checkpoint(args.checkpoint)
    values = saved.evaluate(saved.learner(args.checkpoint), items)
    where = args.data or args.split
    if args.json:
        print(json.dumps(plain({"checkpoint": path.name, "data": where, "items": len(items), **values})))
        return 0
    print(f"{path.name} on {where}, {len(items):,} items")
    for name, value in values.items():
        print(f"  {name:<20} {value:.6g}")
    return 0


COMMAND = Command(
    name="eval",
    help="measure the model of a run",
    description="Print loss and metrics of a run's model. Data are prepared as in training, by the run's own statistics.",
    arguments=arguments,
    run=run,
)
