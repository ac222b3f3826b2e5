"""Takes times: rounds of many steps with one wait at their end, alternating among engines; knows not what a step does."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

SECONDS = 0.25  # of a round: long against a clock's and a scheduler's grain, short against a machine's moods


@dataclass(frozen=True, slots=True)
class Round:
    """``host_us``: median time until a call returned that found the device idle; lavapipe blocks the next.

    ``wall_us``: time of ``steps`` calls and one wait, over their number.
    """

    steps: int
    host_us: float
    wall_us: float


def time_round(step: Callable[[], object], wait: Callable[[], None], steps: int) -> Round:
    """Return the times of a tenth of ``steps`` calls, each waited for, and of ``steps`` in a row after them."""
    calls: list[float] = []
    wait()
    for _ in range(max(3, steps // 10)):  # warms clocks and caches as well
        start = time.perf_counter()
        step()
        calls.append(time.perf_counter() - start)
        wait()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    wait()
    wall = time.perf_counter() - start
    return Round(steps, statistics.median(calls) * 1e6, wall / steps * 1e6)


def steps_of_a_round(wall_us: float) -> int:
    """Return how many steps of this length make a round, at least 2 and at most 1000."""
    return min(max(round(SECONDS * 1e6 / wall_us), 2), 1000)


def alternating(items: Sequence[T], rounds: int) -> Iterator[T]:
    """Yield every item once a round, forwards and backwards by turns, so that a drift of the machine hits all alike."""
    for n in range(rounds):
        yield from items if n % 2 == 0 else reversed(items)
