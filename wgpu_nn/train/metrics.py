"""Running loss and accuracy: kept on the device step by step, read rarely and behind; knows neither models nor files."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass

from wgpu_nn.backends.base import Pending
from wgpu_nn.dtype import Float, Int
from wgpu_nn.tensor import Cell, Device, Tensor, arange, host_numbers, zeros

# A read costs a submit and a copy, but no wait: it is picked up when it has come. Only when READ_STEPS more steps are
# under way by then does the loop wait, so that the device is never further behind than twice that.
READ_SECONDS = 0.5
READ_STEPS = 128


@dataclass(frozen=True, slots=True)
class Metrics:
    """The mean loss, and the share of correct answers, over ``items``."""

    loss: float
    accuracy: float
    items: int


@dataclass(frozen=True, slots=True)
class StepValue:
    """What one step measured: the mean loss over its batch, how many answers were correct, and of how many."""

    loss: float
    correct: int
    items: int


@dataclass(slots=True)
class Sums:
    """Sums over steps in double precision, in order of the steps: when they are read makes no difference."""

    loss: float = 0.0
    correct: int = 0
    items: int = 0

    def add(self, value: StepValue) -> None:
        """Count a step; its loss weighs as much as its batch has items."""
        self.loss += value.loss * value.items
        self.correct += value.correct
        self.items += value.items

    def metrics(self) -> Metrics:
        """Return the means; NaN over nothing."""
        if not self.items:
            return Metrics(float("nan"), float("nan"), 0)
        return Metrics(self.loss / self.items, self.correct / self.items, self.items)


@dataclass(frozen=True, slots=True)
class Read:
    """Numbers of steps on their way from the device."""

    losses: Pending
    correct: Pending
    items: list[int]

    def ready(self) -> bool:
        """Say whether they have come; waits for nothing."""
        return self.losses.ready() and self.correct.ready()

    def values(self) -> list[StepValue]:
        """Return them, in order of the steps; waits until they have come."""
        losses, correct = self.losses.result(), self.correct.result()
        return [StepValue(float(losses[i]), int(correct[i]), n) for i, n in enumerate(self.items)]


class Window:
    """The losses and correct counts of the last steps, in two small tensors on the device that are written round and round.

    A read copies them as they are, in order with the steps, so that the next steps may overwrite them before it arrives.
    """

    def __init__(self, device: Device, room: int = READ_STEPS) -> None:
        self._room = room
        self._places = arange(room, device=device)
        self._device = device
        self._losses = Cell(zeros(room, device, dtype=device.backend.dtypes[Float]))
        self._correct = Cell(zeros(room, device, Int))
        self._items: list[int] = []
        self._open: Read | None = None
        self._read_at = -math.inf  # the first step is read at once, and shows that things move

    @property
    def cells(self) -> tuple[Cell, Cell]:
        """What ``put`` replaces: the state of a captured step that calls it."""
        return self._losses, self._correct

    @property
    def unread(self) -> int:
        """The number of steps put down that no read has returned yet."""
        return len(self._items) + (len(self._open.items) if self._open else 0)

    def put(self, loss: Tensor, correct: Tensor) -> None:
        """Put down a step's mean loss [] and its count of correct answers [] Int; ``note`` must follow."""
        (place,) = host_numbers(self._device, lambda: [len(self._items)])
        # NOTE: not .set(place, loss): kernels of slices differ with the slice's alignment, and would compile as it moves.
        here = self._places == place
        self._losses.value = here.where(loss, self._losses.value)
        self._correct.value = here.where(correct, self._correct.value)

    def note(self, items: int) -> None:
        """Say how many items the step had whose numbers were put down last; ``turn`` or ``read`` must follow."""
        self._items.append(items)

    def turn(self) -> list[StepValue]:
        """Return the steps whose numbers have come by now, and ask for those since when it is time to.

        Waits for the device only if there is no room for another step while a read is still open.
        """
        full = len(self._items) == self._room
        values: list[StepValue] = []
        if self._open is not None and (full or self._open.ready()):
            values = self._take()
        if self._open is None and (full or time.perf_counter() - self._read_at >= READ_SECONDS):
            self._ask()
        return values

    def read(self) -> list[StepValue]:
        """Return all steps that were not returned yet; waits for the device."""
        values = self._take()
        self._ask()
        return values + self._take()

    def clear(self) -> None:
        """Forget what was put down, as before the first step."""
        self._items.clear()
        self._open = None
        self._read_at = -math.inf

    def _ask(self) -> None:
        if self._items:
            losses, correct = self._losses.value.numpy_later(), self._correct.value.numpy_later()
            self._open = Read(losses, correct, self._items.copy())
            self._items.clear()
        self._read_at = time.perf_counter()

    def _take(self) -> list[StepValue]:
        values = self._open.values() if self._open is not None else []
        self._open = None
        return values


class Pace:
    """How fast items go by, over the last few reads; the time between a stop and the next start does not count."""

    def __init__(self, reads: int = 20) -> None:
        self._parts: deque[tuple[int, float]] = deque(maxlen=reads)
        self._cold = True
        self._since = 0.0

    def start(self) -> None:
        """Begin to count time."""
        self._since = time.perf_counter()

    def count(self, items: int) -> float:
        """Note that ``items`` went by; return the seconds since the last note or the start."""
        now = time.perf_counter()
        spent, self._since = now - self._since, now
        if items:
            if self._cold and self._parts:
                self._parts.clear()  # the first part had paid for compiling shaders
                self._cold = False
            self._parts.append((items, spent))
        return spent

    @property
    def per_second(self) -> float:
        """Items per second; 0 before the first."""
        spent = sum(seconds for _, seconds in self._parts)
        return sum(items for items, _ in self._parts) / spent if spent else 0.0
