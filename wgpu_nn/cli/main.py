"""Reads the command line and hands over to one subcommand; what these do, their modules know."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import wgpu_nn
from wgpu_nn.cli import bench, explain, info, profile, report, shader
from wgpu_nn.cli.command import Command
from wgpu_nn.errors import WgpuNNError

COMMANDS: tuple[Command, ...] = (
    info.COMMAND,
    explain.COMMAND,
    bench.COMMAND,
    profile.COMMAND,
    report.COMMAND,
    shader.COMMAND,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` (the process's own arguments) names; return the exit status, 1 for our errors."""
    parser = argparse.ArgumentParser(prog="wgpu-nn", description="Deep learning on any GPU that WebGPU reaches.")
    parser.add_argument("--version", action="version", version=f"wgpu-nn {wgpu_nn.__version__}")
    subparsers = parser.add_subparsers(metavar="command", required=True)
    for command in COMMANDS:
        sub = subparsers.add_parser(command.name, help=command.help, description=command.description)
        command.arguments(sub)
        sub.set_defaults(run=command.run)
    args = parser.parse_args(argv)
    try:
        return args.run(args)
    except WgpuNNError as error:
        print(f"wgpu-nn: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `wgpu-nn info | head`: nobody reads on
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130
