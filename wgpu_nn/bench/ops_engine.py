"""A peer's engine for one item of work: prepared when it is asked for, and let go when the next one is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from wgpu_nn.bench.engine import Facts, Label
from wgpu_nn.bench.exact import Arrays
from wgpu_nn.bench.timing import Round, time_round
from wgpu_nn.bench.work import Item


@dataclass(frozen=True, slots=True)
class Job:
    """``step`` does the work once, ``wait`` waits for it; ``fetch`` does it once more and returns the result."""

    step: Callable[[], object]
    wait: Callable[[], None]
    fetch: Callable[[], np.ndarray]


@dataclass(slots=True)
class Held:
    """The one job of a process: large ones would not fit beside each other."""

    engine: object = None
    job: list[Job] = field(default_factory=list[Job])


class OpsEngine:
    """``prepare`` takes an item and its inputs, and returns its job."""

    def __init__(self, label: Label, item: Item, prepare: Callable[[Item, Arrays], Job], held: Held) -> None:
        self.label, self._item, self._prepare, self._held = label, item, prepare, held

    @property
    def _job(self) -> Job:
        if self._held.engine is not self:
            self._held.job.clear()  # before the next is made
            self._held.job.append(self._prepare(self._item, self._item.draw()))
            self._held.engine = self
        return self._held.job[0]

    def outcome(self) -> list[float]:
        """Return the sampled elements of the result."""
        return self._item.sample(self._job.fetch())

    def facts(self) -> Facts:
        return Facts()

    def round(self, steps: int) -> Round:
        return time_round(self._job.step, self._job.wait, steps)
