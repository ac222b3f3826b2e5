"""``wgpu-nn resume RUN``: a run goes on, from its folder alone."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from wgpu_nn.cli.command import Command
from wgpu_nn.cli.train import EXIT, begin


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``wgpu-nn resume``: the fields that may change."""
    from wgpu_nn.cli.flags import add_flags, flags_of
    from wgpu_nn.runs import RunConfig
    from wgpu_nn.runs.config import FREE

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXIT
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the folder of the run")
    free = (flag for flag in flags_of(RunConfig) if ".".join(flag.path) in FREE)
    add_flags(parser, [replace(flag, default=None) for flag in free])  # the run's own is what holds


def run(args: argparse.Namespace) -> int:
    """Go on with the run."""
    from wgpu_nn.cli.flags import given, overridden
    from wgpu_nn.runs import RunConfig, saved_config

    folder: Path = args.run_folder
    values = json.loads(saved_config(folder).to_json())
    return begin(RunConfig.of(f"resume: {folder}", overridden(RunConfig, values, given(args))), folder, resume=True)


COMMAND = Command(
    name="resume",
    help="go on with a run that was stopped, or for more epochs",
    description="Go on with a run of wgpu-nn train: it comes to the same weights, bit for bit, as if it had never stopped.\n"
    "--epochs makes it longer; a schedule over the whole run then has the new length.",
    arguments=arguments,
    run=run,
)
