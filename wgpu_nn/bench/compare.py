"""Compares engines: numerics first, then rounds by turns; what the work is, each benchmark knows."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from wgpu_nn.bench.engine import Engine, Facts
from wgpu_nn.bench.peers import Peer
from wgpu_nn.bench.timing import Round, alternating, steps_of_a_round
from wgpu_nn.errors import WgpuNNError

SECONDS = 15.0  # after which a slow engine has enough rounds, if it has FEWEST
FEWEST = 3

T = TypeVar("T")


@dataclass(slots=True)
class Row:
    """What is found out about an engine, which must come within ``tolerance`` of the reference.

    ``failure`` says why an engine is given up.
    """

    engine: Engine
    peer: bool
    tolerance: float
    outcome: list[float] = field(default_factory=list)
    difference: float | None = None
    facts: Facts = field(default_factory=Facts)
    steps: int = 0
    rounds: list[Round] = field(default_factory=list)
    failure: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether all numbers are those of the reference; NaN is not."""
        return self.difference is not None and self.difference <= self.tolerance

    @property
    def good(self) -> bool:
        """Whether the engine agrees, or is a peer that cannot be had."""
        return self.agrees if self.failure is None else self.peer

    @property
    def host_us(self) -> float | None:
        return statistics.median(r.host_us for r in self.rounds) if self.rounds else None

    @property
    def wall_us(self) -> float | None:
        return statistics.median(r.wall_us for r in self.rounds) if self.rounds else None

    def over(self, other: Row) -> float | None:
        """Return how many times faster this row is than ``other``, if both do the same work."""
        mine, its = self.wall_us, other.wall_us
        if mine is None or its is None or self.engine.label.work != other.engine.label.work:
            return None
        return its / mine

    def attempt(self, ask: Callable[[], T], default: T) -> T:
        """Return what the engine answers, or ``default`` if it breaks off, now or earlier."""
        if self.failure is None:
            try:
                return ask()
            except WgpuNNError as error:
                self.failure = str(error)
        return default


def compare(row: Row, reference: Sequence[float], scale: Sequence[float] = ()) -> None:
    """Find out how far an engine's numbers are from the first of ``reference``, in units of ``scale`` (1), and what its
    steps cost."""
    row.outcome = row.attempt(row.engine.outcome, [])
    if row.outcome:
        units = scale or [1.0] * len(reference)
        differences = [abs(x - y) / s for x, y, s in zip(row.outcome, reference, units)]
        row.difference = max(differences, key=lambda d: (d != d, d))  # NaN counts as the largest
    row.facts = row.attempt(row.engine.facts, Facts())


def time_rows(rows: Sequence[Row], rounds: int, steps: int | None) -> None:
    """Time the engines in rounds, by turns; one that breaks off, or has taken long, is left out from then on."""
    spent = [0.0] * len(rows)
    for row in rows:
        pace = row.attempt(lambda row=row: row.engine.round(2), None)
        if pace is not None:
            row.steps = steps or steps_of_a_round(pace.wall_us)
    for n in alternating(range(len(rows)), rounds):
        row = rows[n]
        if spent[n] > SECONDS and len(row.rounds) >= FEWEST:
            continue
        found = row.attempt(lambda row=row: row.engine.round(row.steps), None)
        if found is not None:
            row.rounds.append(found)
            spent[n] += found.wall_us * found.steps * 1e-6


def positive(text: str) -> int:
    """Return a number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {value}")
    return value


def peers_of(known: Mapping[str, Peer], text: str) -> tuple[Peer, ...]:
    """Return the peers that a list like ``torch,tinygrad`` names."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, got {unknown[0]!r}")
    return tuple(known[name] for name in dict.fromkeys(names))
