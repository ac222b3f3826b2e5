"""Ctrl-C as a request: the first one asks the loop to stop, the second one stops it; knows nothing of training."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class Stopped(Exception):
    """Leaves the loop after the step in which Ctrl-C was pressed."""


class Interrupt:
    """Within a ``with`` block the first SIGINT sets ``asked``, and a second one raises KeyboardInterrupt at once.

    The handler from before comes back at the end. In other threads than the main one, and where SIGINT is ignored
    (background jobs of a shell), nothing is changed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._installed = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.getsignal(signal.SIGINT)
            if self._before is not signal.SIG_IGN:
                signal.signal(signal.SIGINT, self._handle)
                self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._installed:
            # NOTE: None stands for a handler that C code installed, which Python cannot put back.
            signal.signal(signal.SIGINT, signal.SIG_DFL if self._before is None else self._before)
            self._installed = False

    def check(self) -> None:
        """Raise Stopped if Ctrl-C was pressed."""
        if self.asked:
            raise Stopped

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
