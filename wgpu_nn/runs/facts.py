"""Facts: what a model must know of the data it was trained on; saved with a run, so that later data are treated alike."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from pydantic import Field

from wgpu_nn.errors import DataError
from wgpu_nn.nn import Config

AT_ONCE = 1024  # items that statistics are taken of together


class Facts(Config):
    """Shapes, names and statistics of the training split.

    ``mean`` and ``deviation`` standardise inputs: one number for all, or one for each place on an item's first axis; empty
    where nothing is standardised.
    """

    inputs: tuple[int, ...] = Field(description="shape of an item's input")
    outputs: int = Field(gt=0, description="classes, or numbers to predict")
    classes: tuple[str, ...] = Field(default=(), description="names of the classes, where they have any")
    features: tuple[str, ...] = Field(default=(), description="columns of a table, in order")
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    @property
    def size(self) -> int:
        """Numbers of an item's input."""
        return math.prod(self.inputs)

    def name(self, label: int) -> str:
        """Return the name of a class, or its number."""
        return self.classes[label] if label < len(self.classes) else str(label)

    def prepared(self, inputs: np.ndarray) -> np.ndarray:
        """Return inputs [n, ...] as the model wants them, float32."""
        return standardised(inputs, np.array(self.mean), np.array(self.deviation))


def scaled(inputs: np.ndarray) -> np.ndarray:
    """Return bytes, which are pixels, as 0..1, and other numbers as they are."""
    return inputs / 255.0 if inputs.dtype == np.uint8 else inputs


def standardised(inputs: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Return inputs [n, ...] less ``mean`` and divided by ``deviation``, as float32; as they are where these are empty."""
    x = scaled(inputs)
    if mean.size:
        shape = (-1, *(1,) * (x.ndim - 2)) if mean.size > 1 else (1,)
        x = (x - mean.reshape(shape)) / deviation.reshape(shape)
    return np.ascontiguousarray(x, np.float32)


def statistics(read: Callable[[np.ndarray], np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation of the inputs of n items, in one walk (Chan et al. 1983); ``read(indices)`` reads them.

    Of rows [k] and of images [channels, height, width] by the first axis, of others of all numbers together: [k] or [1].
    What does not vary has a deviation of 1. Raises DataError for the first input that is not finite.
    """
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    for start in range(0, n, AT_ONCE):
        x = scaled(read(np.arange(start, min(start + AT_ONCE, n)))).astype(np.float64)
        finite = np.isfinite(x).reshape(len(x), -1).all(1)
        if not finite.all():
            raise DataError(
                f"data: expected finite numbers as inputs, got NaN or infinity in item {start + int(finite.argmin())} of the "
                f"{n} to train on; correct it, or leave it out"
            )
        rows = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1]) if x.ndim in (2, 4) else x.reshape(-1, 1)
        more, centre = len(rows), rows.mean(0)
        apart, both = centre - mean, count + more
        squares = squares + ((rows - centre) ** 2).sum(0) + apart**2 * (count * more / both)
        mean, count = mean + apart * (more / both), both
    deviation = np.sqrt(squares / count)
    return mean, np.where(deviation == 0, 1.0, deviation)
