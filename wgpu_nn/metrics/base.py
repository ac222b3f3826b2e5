"""What a metric is: statistics of a batch on the device, and their value on the host; knows no metric and no loop."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from wgpu_nn.errors import DataError
from wgpu_nn.tensor import Tensor

Better = Literal["higher", "lower"]
Joins = Literal["sum", "concat"]
Details = dict[str, np.ndarray | float]


class Metric(abc.ABC):
    """A number that says how good outputs are: statistics of each batch on the device, joined, and read rarely.

    To make one, write the two methods, and give it a ``name`` and what is ``better``. ``joins`` says how the statistics
    of batches become those of all of them: "sum" adds them up (Ints exactly, Floats in f32), "concat" joins them along
    axis 0.
    """

    __slots__ = ()

    name: str
    better: ClassVar[Better | None] = None
    joins: ClassVar[Joins] = "sum"

    @abc.abstractmethod
    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return what one batch adds: tensor ops alone, nothing is read, so that it can stand inside a captured step.

        Where ``joins`` is "sum" the shapes do not depend on the size of the batch.
        """

    @abc.abstractmethod
    def value(self, *totals: np.ndarray) -> float:
        """Return the number, from the joined statistics; NaN where there is none, as over nothing."""

    def condense(self, *joined: Tensor) -> tuple[Tensor, ...]:
        """Return what is read of the joined statistics: as they are, unless a metric sorts them on the device first."""
        return joined

    def details(self, *totals: np.ndarray) -> Details:
        """Return what the value leaves out, by name: values of classes, a confusion matrix; nothing by default."""
        return {}


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric's value and its details."""

    value: float
    details: Details


def measure(metric: Metric, *joined: Tensor) -> Measured:
    """Return what ``metric`` is, from its joined statistics; NaN and no details from none. Waits for the device.

    Raises DataError where targets were measured that cannot be, as classes out of range.
    """
    if not joined:
        return Measured(math.nan, {})
    totals = [t.numpy() for t in metric.condense(*joined)]
    return Measured(float(metric.value(*totals)), metric.details(*totals))


def ratio(part: np.ndarray | float, whole: np.ndarray | float, *, undefined: float = math.nan) -> np.ndarray:
    """Return part / whole in double precision, and ``undefined`` where the whole is 0."""
    a, b = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(a, b, out=np.full(a.shape, undefined), where=b != 0)


def refuse_strays(name: str, count: int, expected: str) -> None:
    """Raise DataError if any targets were out of range; the device counts them, the first read sees them."""
    if count:
        raise DataError(
            f"{name}: expected targets {expected}, got {count} others among those measured; "
            "mend the data, or leave such items out with ignore="
        )
