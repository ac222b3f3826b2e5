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
    _skip_drivers_end()


def _skip_drivers_end() -> None:
    """Let this child end right before what drivers have registered for the end of the process.

    NVIDIA's would crash here, and leave the parent waiting for its GPU for ever. Python's own end comes before it; what
    C libraries have registered before the fork is left out too, as it is by ``multiprocessing``. Only where the C library
    tells its handlers the exit status (glibc).
    """
    import ctypes

    library = ctypes.CDLL(None)
    if hasattr(library, "on_exit"):
        library.on_exit(library._exit, None)  # the last to be registered is the first to run


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_cut)
