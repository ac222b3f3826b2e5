"""Plants one fault at a time in the WGSL bodies, and counts how many of them the bodies' own tests find.

``python -m tests.mutate [BODY...] [--sample N] [--seed S] [--seconds T] [--processes P]`` draws N faults of each body (all
without it), runs the tests that run the body alone, the quick ones first, and reports what survived with its line. A fault
that does not compile does not count; one that hangs or ends the process is found. A development tool: no test runs it.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tests.equivalent_mutants import declared
from tests.mutant_trial import BACKEND, Job, Result, Worker
from tests.mutants import Mutant, mutants
from wgpu_nn.kernels.source import folder, parts
from wgpu_nn.wgsl.tokens import line

HANG = 60.0  # seconds that a fault may take


class Trial(NamedTuple):
    """A fault, and what became of it."""

    mutant: Mutant
    result: Result
    tests: int


class Pool:
    """Worker processes, each for one job at a time."""

    def __init__(self, count: int, files: Sequence[str]) -> None:
        with ThreadPoolExecutor(count) as threads:
            self.workers = list(threads.map(lambda _: Worker(files, HANG), range(count)))
        self.threads = ThreadPoolExecutor(count)
        self.free, self.lock = list(self.workers), threading.Lock()

    def run(self, job: Job) -> Result:
        with self.lock:
            worker = self.free.pop()
        try:
            return worker.run(job)
        finally:
            with self.lock:
                self.free.append(worker)

    def close(self) -> None:
        self.threads.shutdown()
        for worker in self.workers:
            worker.close()


def coverage(pool: Pool) -> dict[str, list[str]]:
    """Run all tests once as they are; return those that run a body, or a function of the library, the quick ones first."""
    tests = pool.workers[0].tests
    seconds: dict[str, float] = {}
    by_name: dict[str, list[str]] = defaultdict(list)
    for result in pool.threads.map(pool.run, (Job([name]) for name in tests)):
        if result.failed:
            print(f"{result.failed} fails without any fault: {result.why}", file=sys.stderr)
            continue
        seconds |= result.seconds
        for name, found in result.files.items():
            for file in found:
                by_name[file].append(name)
    return {name: sorted(found, key=lambda n: seconds[n]) for name, found in by_name.items()}


def covering(mutant: Mutant, text: str, covered: dict[str, list[str]]) -> list[str]:
    """Return the tests of what a fault lies in: a body, or a function of the library."""
    if not mutant.file.startswith("lib/"):
        return covered.get(mutant.file, [])
    for name, part in parts(text).items():
        first = line(text, text.index(part))
        if first <= mutant.line < first + len(part.splitlines()):
            return covered.get(name, [])
    return []


def drawn(bodies: Iterable[str], sample: int, seed: int) -> tuple[list[tuple[Mutant, str]], int]:
    """Return faults of each body with the body's text, in an order that takes turns among bodies; and how many of all of
    these bodies are left out, as they change nothing."""
    rows: list[list[tuple[Mutant, str]]] = []
    equivalent = 0
    for path in sorted(folder().rglob("*.wgsl")):
        file, text = path.relative_to(folder()).as_posix(), path.read_text(encoding="utf-8")
        if bodies and path.stem not in bodies and file not in bodies:
            continue
        every = mutants(file, text)
        found = [m for m in every if not declared(file, m.shown(text))]
        equivalent += len(every) - len(found)
        random.Random(f"{seed} {file}").shuffle(found)
        rows.append([(m, text) for m in found[: sample or None]])
    longest = max(map(len, rows), default=0)
    return [row[k] for k in range(longest) for row in rows if k < len(row)], equivalent


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], prog="python -m tests.mutate")
    parser.add_argument("bodies", nargs="*", metavar="BODY", help="names of bodies, or lib/NAME.wgsl (all)")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="faults of each body (all)")
    parser.add_argument("--seed", type=int, default=0, help="which faults are drawn")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no trial after so long")
    parser.add_argument("--processes", type=int, default=2, help="how many run tests at the same time")
    args = parser.parse_args()
    start = time.monotonic()
    files = [
        str(p) for p in BACKEND.glob("test_*.py") if "\nfrom tests.shader_bench import" in p.read_text(encoding="utf-8")
    ]
    pool = Pool(args.processes, files)
    covered = coverage(pool)
    print(
        f"{sum(map(len, covered.values()))} pairs of a test and a body, after {time.monotonic() - start:.0f} s",
        flush=True,
    )

    def attempt(given: tuple[Mutant, str]) -> Trial | None:
        mutant, text = given
        if time.monotonic() - start > args.seconds:
            return None
        tests = covering(mutant, text, covered)
        result = pool.run(Job(tests, mutant.file, mutant.of(text)))
        if not result.failed:
            print(f"{mutant.file}:{mutant.line}: survived {len(tests)} tests: {mutant.shown(text)}", flush=True)
        elif not result.seconds:
            print(f"{mutant.file}:{mutant.line}: found, {result.why}: {mutant.shown(text)}", flush=True)
        return Trial(mutant, result, len(tests))

    faults, equivalent = drawn(args.bodies, args.sample, args.seed)
    trials = [t for t in pool.threads.map(attempt, faults) if t is not None]
    pool.close()
    print("\n".join(score(trials)))
    print(f"not planted, as they change nothing (tests/equivalent_mutants.py): {equivalent}")
    return 0


def score(trials: Sequence[Trial]) -> list[str]:
    """Return a line for each file, and one for all: faults found, of those that compile."""
    rows: dict[str, list[Trial]] = defaultdict(list)
    for t in trials:
        if not t.result.broken:
            rows[t.mutant.file].append(t)
            rows["all"].append(t)
    out: list[str] = []
    for file in [*sorted(rows.keys() - {"all"}), *(["all"] if rows else [])]:
        found = sum(bool(t.result.failed) for t in rows[file])
        out.append(f"{file:<40} {found:>5} of {len(rows[file]):>5}  {found / len(rows[file]):>6.1%}")
    return out


if __name__ == "__main__":
    sys.exit(main())
