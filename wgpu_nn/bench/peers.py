"""Runs peers' engines in processes of their own: their threads, drivers and crashes stay away from ours and each other."""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from wgpu_nn.bench.engine import Engine, Facts, Label
from wgpu_nn.bench.timing import Round
from wgpu_nn.errors import WgpuNNError

SECONDS = 600.0  # after which a peer that does not answer is given up


class PeerError(WgpuNNError, RuntimeError):
    """A peer is not installed, does not work here, or broke off; the benchmark goes on without it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """``module`` has ``engines(work) -> (list of Engine, what they are)``, called in the peer's process."""

    name: str
    packages: tuple[str, ...]
    install: str
    module: str


class Remote:
    """An engine of another process."""

    def __init__(self, label: Label, number: int, call: Any) -> None:
        self.label, self._number, self._call = label, number, call

    def outcome(self) -> list[float]:
        return self._call(self._number, "outcome")

    def facts(self) -> Facts:
        return self._call(self._number, "facts")

    def round(self, steps: int) -> Round:
        return self._call(self._number, "round", steps)


@contextmanager
def opened(peer: Peer, work: object) -> Iterator[tuple[list[Engine], str]]:
    """Start a peer's process and return its engines for ``work``, and what they are; raise PeerError if it cannot be had."""
    absent = [package for package in peer.packages if importlib.util.find_spec(package) is None]
    if absent:
        raise PeerError(f"needs {' and '.join(absent)}, not installed; {peer.install}")
    context = multiprocessing.get_context("spawn")  # a fork would share our device's threads and locks
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, peer.module, work), daemon=True)
    process.start()
    there.close()

    def call(*request: object) -> Any:
        try:
            if request:
                here.send(request)
            if not here.poll(SECONDS):
                raise PeerError(f"did not answer within {SECONDS:.0f} s")
            good, answer = here.recv()
        except (EOFError, OSError):
            process.join(5)
            raise PeerError(f"its process ended, with status {process.exitcode}") from None
        if not good:
            raise PeerError(answer)
        return answer

    try:
        labels, about = call()
        yield [Remote(label, number, call) for number, label in enumerate(labels)], about
    finally:
        here.close()  # ends its loop
        process.join(2)
        if process.is_alive():
            process.terminate()
        process.join()
        process.close()


def serve(pipe: Connection, module: str, work: object) -> None:
    """Answer calls of engines' methods until the pipe closes; this runs in the peer's process."""
    engines: list[Engine] = []

    def load() -> tuple[list[Label], str]:
        found, about = importlib.import_module(module).engines(work)
        engines.extend(found)
        return [e.label for e in engines], about

    answer = _answer(load)
    while True:
        try:
            pipe.send(answer)
            number, method, *arguments = pipe.recv()
        except (EOFError, OSError):
            return
        answer = _answer(getattr(engines[number], method), *arguments)


def _answer(function: Any, *arguments: object) -> tuple[bool, Any]:
    try:
        return True, function(*arguments)
    except Exception as error:
        # One line, for the table; compilers write pages.
        where = traceback.extract_tb(error.__traceback__)[-1]
        first = (str(error).splitlines() or [""])[0][:120]
        return False, f"{type(error).__name__}: {first} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})"
