"""What a subcommand is: a row of main.COMMANDS."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """``arguments`` adds its own to a parser; ``run`` does the job and returns the exit status.

    Modules of commands import what is heavy inside of ``run``: all of them are loaded for ``--help``.
    """

    name: str
    help: str
    description: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
