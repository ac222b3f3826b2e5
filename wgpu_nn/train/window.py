"""What each step measured, kept on the device and read rarely and behind: its loss, and other scalars by name."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wgpu_nn.backends.base import Pending
from wgpu_nn.dtype import Float
from wgpu_nn.tensor import Cell, Device, Tensor, arange, host_numbers, read_later, zeros

# A read costs a copy, but no wait: it is picked up when it has come. Only when as many steps again are under way by then
# does the loop wait: the device is never further behind than twice READ_SECONDS, nor than twice READ_STEPS.
READ_SECONDS = 0.5
READ_STEPS = 128
FIRST_STEPS = 8  # those of a read as long as nobody knows how long a step takes
LOOK_SECONDS = 0.001  # between looks at what may have come: each is a call of the driver


@dataclass(frozen=True, slots=True)
class Steps:
    """What steps measured, in order: means over their batches by name, of how many items each, at which rates."""

    values: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]])
    items: Sequence[int] = ()
    rates: Sequence[float] = ()

    def __len__(self) -> int:
        return len(self.items)

    @property
    def losses(self) -> Sequence[float]:
        """The mean losses over the batches."""
        return self.values.get("loss", ())

    def first(self, count: int) -> Steps:
        """Return the first ``count`` of them."""
        values = {name: column[:count] for name, column in self.values.items()}
        return Steps(values, self.items[:count], self.rates[:count])

    def then(self, other: Steps) -> Steps:
        """Return these and, after them, the others."""
        if not self or not other:
            return self or other
        values = {name: [*column, *other.values[name]] for name, column in self.values.items()}
        return Steps(values, [*self.items, *other.items], [*self.rates, *other.rates])


NOTHING = Steps()


@dataclass(slots=True)
class Sums:
    """Sums over steps in double precision, in order of the steps: when they are read makes no difference."""

    totals: dict[str, float] = field(default_factory=dict)
    items: int = 0

    def add(self, steps: Steps) -> None:
        """Count steps; the means of each weigh as much as its batch has items."""
        for name, column in steps.values.items():
            total = self.totals.get(name, 0.0)
            for x, items in zip(column, steps.items, strict=True):
                total += x * items
            self.totals[name] = total
        self.items += sum(steps.items)

    def means(self) -> dict[str, float]:
        """Return the means over all items by name; the loss is NaN over nothing."""
        if not self.items:
            return {"loss": math.nan}
        return {name: total / self.items for name, total in self.totals.items()}


@dataclass(frozen=True, slots=True)
class Read:
    """Numbers of steps on their way from the device."""

    columns: dict[str, Pending]
    items: list[int]
    rates: list[float]

    def ready(self) -> bool:
        """Say whether they have come; waits for nothing."""
        return all(column.ready() for column in self.columns.values())

    def steps(self) -> Steps:
        """Return them, in order of the steps; waits until they have come."""
        count = len(self.items)
        values = {name: column.result()[:count].tolist() for name, column in self.columns.items()}
        return Steps(values, self.items, self.rates)


class Window:
    """The scalars of the last steps, in a small tensor each on the device that is written round and round.

    A read copies them as they are, in order with the steps, so that the next steps may overwrite them before it arrives.
    """

    def __init__(self, device: Device, room: int = READ_STEPS) -> None:
        self._room = room
        self._places = arange(room, device=device)
        self._device = device
        self._columns: dict[str, Cell] = {}
        self._items: list[int] = []
        self._rates: list[float] = []
        self._most = min(FIRST_STEPS, room)  # steps of a read
        self._open: Read | None = None
        self._asked_at = -math.inf  # the first step is read at once, and shows that things move
        self._look_at = -math.inf
        self._came_at: float | None = None
        self.asked = 0  # how often the device was asked

    def cells(self) -> list[Cell]:
        """Return what ``put`` replaces: the state of a captured step that calls it."""
        return list(self._columns.values())

    @property
    def unread(self) -> int:
        """The number of steps put down that no read has returned yet."""
        return len(self._items) + (len(self._open.items) if self._open else 0)

    def put(self, values: Mapping[str, Tensor]) -> None:
        """Put down a step's scalars [], the same names each time; ``note`` must follow."""
        (place,) = host_numbers(self._device, lambda: [len(self._items)])
        # NOTE: not .set(place, x): kernels of slices differ with the slice's alignment, and would compile as it moves.
        here = self._places == place
        for name, x in values.items():
            column = self._columns.get(name)
            if column is None:
                exact = self._device.backend.dtypes[Float]  # where a device's Floats are halves, too
                with self._device.untraced():  # a captured step must find it as state
                    column = self._columns[name] = Cell(zeros(self._room, self._device, dtype=exact))
            column.value = here.where(x, column.value)

    def note(self, items: int, lr: float = math.nan) -> Steps:
        """Say how many items the step had whose numbers were put down last.

        Returns the steps whose numbers have come by now, and asks for those since when it is time to. Waits for the device
        only if as many steps as one read may have are under way behind an open one.
        """
        self._items.append(items)
        self._rates.append(lr)
        now = time.perf_counter()
        full = len(self._items) >= self._most
        steps = NOTHING
        if self._open is not None and (full or (now >= self._look_at and self._come(now))):
            steps = self._take()
        if self._open is None and (full or now - self._asked_at >= READ_SECONDS):
            self._ask()
        return steps

    def read(self) -> Steps:
        """Return all steps that were not returned yet; waits for the device."""
        steps = self._take()
        self._ask()
        steps = steps.then(self._take())
        self._came_at = None  # who waits does something else now
        return steps

    def clear(self) -> None:
        """Forget what was put down, as before the first step."""
        self._items.clear()
        self._rates.clear()
        self._open = self._came_at = None
        self._asked_at = self._look_at = -math.inf

    def _ask(self) -> None:
        if self._items:
            columns = read_later({name: cell.value for name, cell in self._columns.items()})
            self._open = Read(columns, self._items, self._rates)
            self._items, self._rates = [], []
            self.asked += 1
        self._asked_at = time.perf_counter()

    def _come(self, now: float) -> bool:
        self._look_at = now + LOOK_SECONDS
        return self._open is not None and self._open.ready()

    def _take(self) -> Steps:
        if self._open is None:
            return NOTHING
        steps, self._open = self._open.steps(), None
        now = time.perf_counter()
        if self._came_at is not None:
            in_time = READ_SECONDS * len(steps) / max(now - self._came_at, 1e-9)
            self._most = max(1, min(self._room, int(in_time)))
        self._came_at = now
        return steps


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
