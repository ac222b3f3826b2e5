"""One process that collects the tests of WGSL bodies once, and then runs some of them as often as it is told, with a file
of the shaders replaced by another text; leaves it to others which, and what to make of it."""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

BACKEND = Path(__file__).parent / "backend"


@dataclass(frozen=True, slots=True)
class Job:
    """Tests to run, by name, until one fails; ``file`` is the path in the folder of shaders that has ``text`` instead."""

    tests: Sequence[str]
    file: str = ""
    text: str = ""


@dataclass(slots=True)
class Result:
    """What became of it: the test that failed, and why; how long each took, and which files it ran."""

    failed: str = ""
    broken: bool = False  # it failed as the text does not compile
    why: str = ""
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    files: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])  # and functions of the library


class Trials:
    """A pytest plugin: in place of the loop over all tests, a loop over jobs."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.error: BaseException | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        report = yield
        if report.failed and self.error is None and call.excinfo is not None:
            self.error = call.excinfo.value
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        # Trusted shaders are not run: a fault that writes out of bounds there would harm this process.
        self.connection.send([] if session.testsfailed else [name for name in items if "trusted" not in name])
        while (job := self.connection.recv()) is not None:
            self.connection.send(self._run(job, items))
        return True

    def _run(self, job: Job, items: dict[str, pytest.Item]) -> Result:
        from tests import shader_report

        _replace(job.file, job.text)
        out = Result()
        for name in job.tests:
            shader_report.RUNS.clear()
            self.error, start = None, time.monotonic()
            _once(items[name])
            out.seconds[name] = time.monotonic() - start
            runs = shader_report.RUNS
            out.files[name] = frozenset().union(*({r.variant.file} | r.functions for r in runs))
            if self.error is not None:
                out.failed, out.why = name, f"{type(self.error).__name__}: {self.error}"[:300]
                out.broken = type(self.error).__name__ == "ShaderError"
                break
        return out


def _once(item: Any) -> None:
    """Run a test, again or for the first time, with new fixtures of its own and those of the session kept."""
    from _pytest.runner import runtestprotocol

    item._initrequest()
    runtestprotocol(item, log=False, nextitem=item.session)  # what follows shares the session with it, and no more


def _replace(file: str, text: str) -> None:
    """Let kernels be made of another text; of all texts as they are if no file is named."""
    from wgpu_nn.kernels import source

    body, library = _originals()
    changed = source.parts(text) if file.startswith("lib/") else {}
    functions = {**library(), **changed}
    source.body = lambda name: text if f"{name}.wgsl" == file else body(name)  # pyright: ignore[reportAttributeAccessIssue]
    source.library = lambda: functions  # pyright: ignore[reportAttributeAccessIssue]


@functools.cache
def _originals() -> Any:
    from wgpu_nn.kernels import source

    return source.body, source.library


def _serve(connection: Connection, files: Sequence[str]) -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    pytest.main(["-q", "-p", "no:cacheprovider", *files], plugins=[Trials(connection)])


class Worker:
    """A process of its own, and the tests that it has collected; one that does not answer in time is replaced."""

    def __init__(self, files: Sequence[str], limit: float) -> None:
        self.files, self.limit = files, limit
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.files), daemon=True)
        self.process.start()
        theirs.close()
        self.tests: list[str] = self.connection.recv()
        if not self.tests:
            raise SystemExit(f"the tests cannot be collected: python -m pytest --collect-only {' '.join(self.files)}")

    def run(self, job: Job) -> Result:
        """Run a job; a process that hangs or ends is a test that failed."""
        why = f"no answer within {self.limit:g} s"
        try:
            self.connection.send(job)
            if self.connection.poll(self.limit):
                return self.connection.recv()
        except (EOFError, OSError):
            why = "the process ended"
        self.process.kill()
        self.process.join()
        self._start()
        return Result(failed="?", why=why)

    def close(self) -> None:
        """End the process."""
        self.connection.send(None)
        self.process.join(10)
        self.process.kill()
