"""Forked processes: a child has its parent's handles but none of its driver's threads, so every use is refused by name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from wgpu_nn.errors import DeviceError

MESSAGE = (
    "device: expected the process that opened it, got a fork of that; start processes by multiprocessing's spawn or "
    "forkserver, or name the first device after the fork"
)

_in_children: list[Callable[[], None]] = []
_forked = False  # whether this process is a fork of one that had loaded the driver


class Refused:
    """Stands in for a lock: whoever takes it learns why it cannot."""

    def __enter__(self) -> NoReturn:
        refuse()

    def __exit__(self, *error: object) -> None: ...


def refuse(*unused: object) -> NoReturn:
    """Raise the error that says what to do instead."""
    raise DeviceError(MESSAGE)


def in_children(callback: Callable[[], None]) -> None:
    """Call ``callback`` in forked children, to let go of what waits there for a driver that will never answer."""
    _in_children.append(callback)


def check() -> None:
    """Raise in a fork of a process that had loaded the driver."""
    if _forked:
        refuse()


def _cut() -> None:
    global _forked
    _forked = True
    for callback in _in_children:
        callback()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_cut)
