"""What a benchmark compares: engines, each doing the same piece of work; who they are, their modules know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from wgpu_nn.bench.timing import Round


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one step in steady state; None is what an engine does not tell.

    ``compiled`` and ``allocated`` count pipelines and buffers. ``device_us`` is the sum of GPU timestamps, ``launch_us``
    what each launch took.
    """

    launches: int | None = None
    submits: int | None = None
    compiled: int | None = None
    allocated: int | None = None
    device_us: float | None = None
    launch_us: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Label:
    """A row's ``key`` in JSON, its ``title``, the head of its column of ratios, and the ``work`` that it does.

    Only engines of the same work are compared in time.
    """

    key: str
    title: str
    work: str
    head: tuple[str, str] = ("", "")


class Engine(Protocol):
    """One way to do the work."""

    label: Label

    def outcome(self) -> list[float]:
        """Return the numbers that all engines must agree on, from a fresh start and without randomness."""
        ...

    def facts(self) -> Facts:
        """Return what one step costs beside time."""
        ...

    def round(self, steps: int) -> Round:
        """Return the times of one round."""
        ...
