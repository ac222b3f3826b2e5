"""Running loss and accuracy: kept on the device step by step, read rarely; knows neither models nor files."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass

from wgpu_nn.dtype import Int
from wgpu_nn.tensor import Cell, Device, Tensor, arange, host_numbers, zeros

# A read waits for the device. Steps queue up between reads, so there is a bound on their number as well.
READ_SECONDS = 0.5
READ_STEPS = 256


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


class Window:
    """The losses and correct counts of the last steps, in two small tensors on the device until they are read."""

    def __init__(self, device: Device, room: int = READ_STEPS) -> None:
        self._room = room
        self._places = arange(room, device=device)
        self._device = device
        self._losses = Cell(zeros(room, device))
        self._correct = Cell(zeros(room, device, Int))
        self._items: list[int] = []
        self._read_at = -math.inf  # the first step is read at once, and shows that things move

    @property
    def cells(self) -> tuple[Cell, Cell]:
        """What ``put`` replaces: the state of a captured step that calls it."""
        return self._losses, self._correct

    def put(self, loss: Tensor, correct: Tensor) -> None:
        """Put down a step's mean loss [] and its count of correct answers [] Int; ``note`` must follow."""
        (place,) = host_numbers(self._device, lambda: [len(self._items)])
        # NOTE: not .set(place, loss): kernels of slices differ with the slice's alignment, and would compile as it moves.
        here = self._places == place
        self._losses.value = here.where(loss, self._losses.value)
        self._correct.value = here.where(correct, self._correct.value)

    def note(self, items: int) -> None:
        """Say how many items the step had whose numbers were put down last."""
        self._items.append(items)

    def add(self, loss: Tensor, correct: Tensor, items: int) -> None:
        """Put down a step and note its items; waits for nothing."""
        self.put(loss, correct)
        self.note(items)

    @property
    def due(self) -> bool:
        """Whether it is time to read: no room is left, or READ_SECONDS have passed since the last read."""
        return len(self._items) == self._room or time.perf_counter() - self._read_at >= READ_SECONDS

    def clear(self) -> None:
        """Forget what was put down, as before the first step."""
        self._items.clear()
        self._read_at = -math.inf

    def read(self) -> list[StepValue]:
        """Return the steps since the last read, and forget them; waits for the device."""
        n = len(self._items)
        values: list[StepValue] = []
        if n:
            losses, correct = self._losses.value.numpy(), self._correct.value.numpy()
            values = [StepValue(float(losses[i]), int(correct[i]), self._items[i]) for i in range(n)]
            self._items.clear()
        self._read_at = time.perf_counter()
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
