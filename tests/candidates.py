"""Choosers for tests that walk through all candidates of what is captured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from wgpu_nn import Device
from wgpu_nn.kernels.plan import Candidate, Task


class Forced:
    """Takes the candidate of a number, or the last before it, and notes how many there were."""

    def __init__(self, number: int) -> None:
        self.number, self.names, self.count = number, list[str](), 0

    def choose(self, task: Task, candidates: Sequence[Candidate]) -> int:
        chosen = min(self.number, len(candidates) - 1)
        self.names.append(candidates[chosen].name)
        self.count = max(self.count, len(candidates))
        return chosen


def every_candidate(device: Device) -> Iterator[Forced]:
    """Yield a chooser for each candidate of what is then captured."""
    number, count = 0, 1
    while number < count:
        device.root.tuner = forced = Forced(number)  # pyright: ignore[reportAttributeAccessIssue]
        yield forced
        number, count = number + 1, max(count, forced.count)
