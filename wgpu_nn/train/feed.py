"""Where a step's batches come from: uploaded one by one, or gathered from data that stay on the device."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from contextlib import closing
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

import numpy as np

from wgpu_nn.data import DataLoader, StreamLoader, in_memory
from wgpu_nn.dtype import Float
from wgpu_nn.errors import DataError, OutOfMemoryError, TrainingError
from wgpu_nn.tensor import Device, Tensor, tensor
from wgpu_nn.train.device_data import DeviceDataset
from wgpu_nn.train.step import Batch

# What a run keeps on its device unless it is told to: all of CIFAR-10 in single precision fits, and few GPUs lack as much.
KEPT_BYTES = 1 << 30

Given: TypeAlias = Batch
"""What a captured step is called with: a batch, or what names it, like an array that is a tensor inside of the step."""

Loader: TypeAlias = "DataLoader | StreamLoader"
"""What cuts data into batches: of a data set, whose length is known, or of a stream."""

Key: TypeAlias = "int | str"
"""Which array of a batch: its place in a tuple, or its name in a dict."""


class Feed(Protocol):
    """Yields what a step is called with, batch by batch, and turns that into the batch inside of the step.

    ``nbytes`` is what it keeps on the device; ``reason`` says why it keeps nothing although it was free to.
    """

    nbytes: int
    reason: str

    def epoch(self, epoch: int, start_batch: int = 0) -> Generator[tuple[Given, int], None, None]:
        """Iterate over the batches of an epoch, each with the number of its items."""
        ...

    def batch(self, given: Given) -> Batch:
        """Return the batch; inside of a captured step, an op like others."""
        ...

    def limit(self, key: Key, classes: int) -> None:
        """Raise DataError for labels that are none of 0 .. ``classes`` - 1: now where all are at hand, or as they come."""
        ...


class Streamed:
    """Uploads every batch as the loader reads it."""

    def __init__(self, loader: Loader, device: Device, reason: str = "") -> None:
        self.nbytes, self.reason = 0, reason
        self._loader, self._device = loader, device
        self._limits: dict[Key, int] = {}

    def epoch(self, epoch: int, start_batch: int = 0) -> Generator[tuple[Given, int], None, None]:
        with closing(self._loader.epoch(epoch, start_batch)) as batches:
            for number, batch in enumerate(batches, start=start_batch):
                named = keyed(batch)
                for key, classes in self._limits.items():
                    _check_labels(f"batch {number} of epoch {epoch}", _range(named[key]), classes)
                uploaded = {key: tensor(array, self._device) for key, array in named.items()}
                yield _like(batch, uploaded), items_of(batch)

    def batch(self, given: Given) -> Batch:
        return given

    def limit(self, key: Key, classes: int) -> None:
        self._limits[key] = classes


class Kept:
    """Uploads the whole data set once; a step is called with the places of its items, and gathers them."""

    def __init__(self, loader: DataLoader, device: Device) -> None:
        self._loader, self._device = loader, device
        whole = keyed(loader.whole())
        self._keys = list(whole)
        self._ranges = {key: _range(array) for key, array in whole.items() if array.dtype.kind in "iu"}
        self._data = DeviceDataset(*whole.values(), device=device)
        self.nbytes, self.reason = sum(_width(device) * t.size for t in self._data.tensors), ""

    def epoch(self, epoch: int, start_batch: int = 0) -> Generator[tuple[Given, int], None, None]:
        places = self._loader.order(epoch).astype(np.int32)  # as GPUs have it
        size = self._loader.batch_size
        for k in range(start_batch, len(self._loader)):
            some: Any = (places[k * size : (k + 1) * size],)
            yield some, len(some[0])

    def batch(self, given: Given) -> Batch:
        (places,) = cast(tuple[Any], given)
        found = self._data.batch(tensor(places, self._device))
        return cast(Batch, _like(self._keys, dict(zip(self._keys, found, strict=True))))

    def limit(self, key: Key, classes: int) -> None:
        if key in self._ranges:
            _check_labels("the data set", self._ranges[key], classes)


def keyed(batch: object) -> dict[Key, np.ndarray]:
    """Return the arrays of a batch by place or name; raise TrainingError for what is neither tuple nor dict of arrays."""
    if isinstance(batch, Mapping):
        return dict(cast(Mapping[Key, np.ndarray], batch))
    if isinstance(batch, tuple | list):
        return dict(enumerate(cast(tuple[np.ndarray, ...], batch)))
    raise TrainingError(f"data: expected batches that are tuples or dicts of arrays, got {type(batch).__name__}")


def items_of(batch: object) -> int:
    """Return the number of items of a batch."""
    return len(next(iter(keyed(batch).values())))


def _like(batch: object, found: Mapping[Key, Tensor]) -> Batch:
    """Return tensors in the form of ``batch``, or of its keys."""
    names = isinstance(batch, Mapping) or (isinstance(batch, list) and bool(batch) and isinstance(batch[0], str))
    return cast(dict[str, Tensor], dict(found)) if names else tuple(found.values())


class _Range(NamedTuple):
    """The least and the largest of whole numbers, and the items that have them."""

    least: int
    most: int
    places: tuple[int, int]


def _range(array: np.ndarray) -> _Range:
    if not array.size:
        return _Range(0, 0, (0, 0))
    each = array.size // len(array)
    at = int(array.argmin()), int(array.argmax())
    return _Range(int(array.flat[at[0]]), int(array.flat[at[1]]), (at[0] // each, at[1] // each))


def _check_labels(where: str, found: _Range, classes: int) -> None:
    if found.least < 0 or found.most >= classes:
        raise DataError(
            f"data: expected class labels in 0 .. {classes - 1}, as the model has {classes} outputs, got {found.least} .. "
            f"{found.most} in {where}, as in item {found.places[found.least >= 0]} of it; number the classes from 0, or "
            "give the model more outputs"
        )


def feed(loader: Loader, device: Device, keep: bool | None = None, room: int = KEPT_BYTES) -> Feed:
    """Return the feed of ``loader``'s batches to ``device``.

    With ``keep`` the data stay there: what the loader makes of an item is then made once. Without a word from the caller
    they do if all is in memory, ``mapped`` rather than transformed, and at most ``room`` bytes. Raises TrainingError if
    they must and cannot.
    """
    if keep is False:
        return Streamed(loader, device)
    if isinstance(loader, StreamLoader):
        if keep:
            raise TrainingError(
                "Learner: keep_on_device: expected data that fit, but a stream has no length; leave it out"
            )
        return Streamed(loader, device)
    reason = _obstacle(loader, device, keep is None, room)
    if not reason:
        try:
            return Kept(loader, device)
        except OutOfMemoryError:
            reason = "the device has no memory left for them"
    if keep:
        raise TrainingError(
            f"Learner: keep_on_device: expected data that fit, but {reason}; leave it out to stream them"
        )
    return Streamed(loader, device, reason)


def _obstacle(loader: DataLoader, device: Device, free: bool, room: int) -> str:
    """Return why the data cannot stay on the device, or why they should not if the choice is ``free``."""
    if free and not in_memory(loader.dataset):
        return "they are not all in memory"
    if free and not loader.repeatable:
        return "the loader's transform may make something else of them each time (mapped makes the same)"
    first = loader.first()
    if loader.pad_last or not isinstance(first, tuple):
        return "their batches are dicts, or have a mask"
    largest, total = _nbytes(len(loader.dataset), first, device)
    if device.largest is not None and largest > device.largest:
        return f"they take {largest:,} bytes, and a tensor of this device has {device.largest:,} at most"
    if free and total > room:
        return f"they take {total:,} bytes, and {room:,} are left for data (keep_on_device=True takes more)"
    return ""


def _nbytes(items: int, first: tuple[np.ndarray, ...], device: Device) -> tuple[int, int]:
    """Return the bytes that the largest array of the data set takes on the device, and those of all of them."""
    sizes = [_width(device) * items * math.prod(array.shape[1:]) for array in first]
    return max(sizes), sum(sizes)


def length(loader: Loader) -> int | None:
    """Return the number of batches of an epoch, if it is known."""
    return len(loader) if isinstance(loader, DataLoader) else None


def items_in(loader: Loader) -> int | None:
    """Return the number of items of an epoch, if it is known."""
    return loader.items if isinstance(loader, DataLoader) else None


def _width(device: Device) -> int:
    """Return the bytes of an element, about: Ints and Bools are no wider than Floats anywhere."""
    return device.dtype(Float).numpy.itemsize
