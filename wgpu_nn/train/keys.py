"""Keys that are pressed in the terminal while something else runs; what they mean, others know."""

from __future__ import annotations

import atexit
import sys
import time
from typing import Any

POLL_SECONDS = 0.05


class Keys:
    """Between ``open`` and ``close`` single keys can be read without Enter, and are not echoed; Ctrl-C stays a signal.

    Where standard input is no terminal, or belongs to another job of the shell, nothing is changed, and no key comes.
    The terminal is put back at ``close``, and at the latest when the process ends.
    """

    def __init__(self) -> None:
        self._before: list[Any] | None = None
        self._windows = False
        self._next = 0.0

    def open(self) -> None:
        """Begin to listen."""
        if sys.stdin is None or not sys.stdin.isatty():
            return
        if sys.platform == "win32":
            self._windows = True
            return
        import os
        import termios
        import tty

        descriptor = sys.stdin.fileno()
        try:
            if os.tcgetpgrp(descriptor) != os.getpgrp():
                return  # a job in the background would be stopped if it changed the terminal
        except OSError:  # a terminal, but not this process's
            return
        self._before = termios.tcgetattr(descriptor)
        tty.setcbreak(descriptor, termios.TCSANOW)
        atexit.register(self.close)

    @property
    def listening(self) -> bool:
        """Whether keys can come."""
        return self._windows or self._before is not None

    def read(self) -> str:
        """Return what was typed since the last call; waits for nothing, and looks every POLL_SECONDS only."""
        now = time.perf_counter()
        if now < self._next:
            return ""
        self._next = now + POLL_SECONDS
        if sys.platform == "win32":
            import msvcrt

            found = ""
            while self._windows and msvcrt.kbhit():
                found += msvcrt.getwch()
            return found
        if self._before is None:
            return ""
        import os
        import select

        descriptor = sys.stdin.fileno()
        if not select.select([descriptor], [], [], 0.0)[0]:
            return ""
        return os.read(descriptor, 1024).decode(errors="ignore")

    def close(self) -> None:
        """Put the terminal back as it was."""
        self._windows = False
        if self._before is not None and sys.platform != "win32":
            import termios

            before, self._before = self._before, None
            # What was typed ahead for the shell stays there.
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)
            atexit.unregister(self.close)
