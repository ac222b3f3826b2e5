"""Reads the command line and hands over to one subcommand; what these do, their modules know."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from itertools import pairwise

import wgpu_nn
from wgpu_nn.cli import bench, evaluate, explain, info, predict, profile, report, resume, shader, train
from wgpu_nn.cli.command import Command
from wgpu_nn.errors import ConfigError, WgpuNNError

COMMANDS: tuple[Command, ...] = (
    info.COMMAND,
    train.COMMAND,
    resume.COMMAND,
    evaluate.COMMAND,
    predict.COMMAND,
    report.COMMAND,
    explain.COMMAND,
    bench.COMMAND,
    profile.COMMAND,
    shader.COMMAND,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that ``argv`` (the process's own arguments) names, and return the exit status.

    That is 2 for what was asked wrongly, as argparse has it, 1 for our other errors, 130 for Ctrl-C.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    named = next((word for word in words if not word.startswith("-")), None)
    parser = argparse.ArgumentParser(prog="wgpu-nn", description="Deep learning on any GPU that WebGPU reaches.")
    parser.add_argument("--version", action="version", version=f"wgpu-nn {wgpu_nn.__version__}")
    subparsers = parser.add_subparsers(metavar="command", required=True)
    chosen = parser
    for command in COMMANDS:
        sub = subparsers.add_parser(command.name, help=command.help, description=command.description)
        if command.name == named:  # the flags of others would only take time
            command.arguments(sub)
            chosen = sub
        sub.set_defaults(run=command.run)
    args, unknown = parser.parse_known_args(words)
    if unknown:
        chosen.error(f"unrecognized arguments: {' '.join(unknown)}{_guess(chosen, words, unknown)}")
    try:
        return args.run(args)
    except WgpuNNError as error:
        print(f"wgpu-nn: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except BrokenPipeError:  # `wgpu-nn info | head`: nobody reads on
        sys.stderr.close()
        return 1
    except KeyboardInterrupt:
        return 130


def _guess(parser: argparse.ArgumentParser, words: Sequence[str], unknown: Sequence[str]) -> str:
    """Return what the first unknown flag may have been meant to be, or that the one before takes no value."""
    known = {name: action for action in parser._actions for name in action.option_strings}
    for flag, word in pairwise(words):
        if word == unknown[0] and flag in known and known[flag].nargs == 0:
            off = [name for name in known[flag].option_strings if name.startswith("--no-") and name != flag]
            return f"; {flag} takes no value" + "".join(f", and {name} switches it off" for name in off)
    flag = next((word.partition("=")[0] for word in unknown if word.startswith("--")), "")
    close = difflib.get_close_matches(flag, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
