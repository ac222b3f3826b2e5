"""What each step measured, kept on the device and read rarely and behind: its loss, and other scalars by name."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from wgpu_nn.backends.base import Pending
from wgpu_nn.dtype import Float
from wgpu_nn.tensor import Cell, Device, Tensor, arange, host_numbers, zeros

# A read costs a submit and a copy, but no wait: it is picked up when it has come. Only when READ_STEPS more steps are
# under way by then does the loop wait, so that the device is never further behind than twice that.
READ_SECONDS = 0.5
READ_STEPS = 128


@dataclass(frozen=True, slots=True)
class StepValue:
    """What one step measured: ``loss`` and other means over its batch by name, of how many items, at which rate."""

    values: Mapping[str, float]
    items: int
    lr: float

    @property
    def loss(self) -> float:
        """The mean loss over the batch."""
        return self.values["loss"]


@dataclass(slots=True)
class Sums:
    """Sums over steps in double precision, in order of the steps: when they are read makes no difference."""

    totals: dict[str, float] = field(default_factory=dict)
    items: int = 0

    def add(self, value: StepValue) -> None:
        """Count a step; its means weigh as much as its batch has items."""
        for name, x in value.values.items():
            self.totals[name] = self.totals.get(name, 0.0) + x * value.items
        self.items += value.items

    def means(self) -> dict[str, float]:
        """Return the means over all items by name; the loss is NaN over nothing."""
        if not self.items:
            return {"loss": math.nan}
        return {name: total / self.items for name, total in self.totals.items()}


@dataclass(frozen=True, slots=True)
class Read:
    """Numbers of steps on their way from the device."""

    columns: dict[str, Pending]
    steps: list[tuple[int, float]]

    def ready(self) -> bool:
        """Say whether they have come; waits for nothing."""
        return all(column.ready() for column in self.columns.values())

    def values(self) -> list[StepValue]:
        """Return them, in order of the steps; waits until they have come."""
        arrays = {name: column.result() for name, column in self.columns.items()}
        return [
            StepValue({name: float(array[i]) for name, array in arrays.items()}, items, lr)
            for i, (items, lr) in enumerate(self.steps)
        ]


class Window:
    """The scalars of the last steps, in a small tensor each on the device that is written round and round.

    A read copies them as they are, in order with the steps, so that the next steps may overwrite them before it arrives.
    """

    def __init__(self, device: Device, room: int = READ_STEPS) -> None:
        self._room = room
        self._places = arange(room, device=device)
        self._device = device
        self._columns: dict[str, Cell] = {}
        self._steps: list[tuple[int, float]] = []
        self._open: Read | None = None
        self._read_at = -math.inf  # the first step is read at once, and shows that things move
        self.asked = 0  # how often the device was asked

    def cells(self) -> list[Cell]:
        """Return what ``put`` replaces: the state of a captured step that calls it."""
        return list(self._columns.values())

    @property
    def unread(self) -> int:
        """The number of steps put down that no read has returned yet."""
        return len(self._steps) + (len(self._open.steps) if self._open else 0)

    def put(self, values: Mapping[str, Tensor]) -> None:
        """Put down a step's scalars [], the same names each time; ``note`` must follow."""
        (place,) = host_numbers(self._device, lambda: [len(self._steps)])
        # NOTE: not .set(place, x): kernels of slices differ with the slice's alignment, and would compile as it moves.
        here = self._places == place
        for name, x in values.items():
            column = self._columns.get(name)
            if column is None:
                exact = self._device.backend.dtypes[Float]  # where a device's Floats are halves, too
                with self._device.untraced():  # a captured step must find it as state
                    column = self._columns[name] = Cell(zeros(self._room, self._device, dtype=exact))
            column.value = here.where(x, column.value)

    def note(self, items: int, lr: float = math.nan) -> None:
        """Say how many items the step had whose numbers were put down last; ``turn`` or ``read`` must follow."""
        self._steps.append((items, lr))

    def turn(self) -> list[StepValue]:
        """Return the steps whose numbers have come by now, and ask for those since when it is time to.

        Waits for the device only if there is no room for another step while a read is still open.
        """
        full = len(self._steps) == self._room
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
        self._steps.clear()
        self._open = None
        self._read_at = -math.inf

    def _ask(self) -> None:
        if self._steps:
            columns = {name: cell.value.numpy_later() for name, cell in self._columns.items()}
            self._open = Read(columns, self._steps.copy())
            self._steps.clear()
            self.asked += 1
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
