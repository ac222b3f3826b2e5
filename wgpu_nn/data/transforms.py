"""Data sets made of other data sets: shuffled, drawn, cut into windows, kept in memory or on disk; files are files.py's."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wgpu_nn.data.dataset import Dataset, Index, Item, in_memory, subset
from wgpu_nn.data.npz import load_arrays
from wgpu_nn.data.sampling import drawn, shuffled
from wgpu_nn.errors import DataError
from wgpu_nn.files import write_atomic

__all__ = ["cached", "permuted", "sampled", "windowed"]


def permuted(dataset: Dataset[Any], seed: int) -> Dataset[Any]:
    """Return the items of ``dataset`` in a random order that stays: a loader's ``shuffle`` gives every epoch its own."""
    return subset(dataset, shuffled(len(dataset), seed))


def sampled(
    dataset: Dataset[Any],
    n: int,
    seed: int,
    weights: Sequence[float] | np.ndarray | None = None,
    replace: bool = False,
) -> Dataset[Any]:
    """Return ``n`` items drawn once from ``dataset``, with probabilities in proportion to ``weights``; equal without.

    A ``WeightedSampler`` draws anew in every epoch. Raises DataError as ``drawn`` does, and for weights of another number
    than items.
    """
    w = np.ones(len(dataset)) if weights is None else np.asarray(weights)
    if w.shape != (len(dataset),):
        raise DataError(f"sampled: expected a weight for each of {len(dataset)} items, got shape {list(w.shape)}")
    return subset(dataset, drawn(w, n, replace, seed))


class _Windowed:
    __slots__ = ("size", "source", "stride")

    def __init__(self, source: Dataset[Item], size: int, stride: int) -> None:
        self.source, self.size, self.stride = source, size, stride

    @property
    def in_memory(self) -> bool:
        return in_memory(self.source)

    def __len__(self) -> int:
        return (len(self.source) - self.size) // self.stride + 1

    def __getitem__(self, index: Index, /) -> Item:
        starts = _places(index, len(self)) * self.stride
        rows = (starts[..., None] + np.arange(self.size)).reshape(-1)
        shape = (*starts.shape, self.size)
        return tuple(array.reshape(*shape, *array.shape[1:]) for array in self.source[rows])


def windowed(dataset: Dataset[Item], size: int, stride: int = 1) -> Dataset[Item]:
    """Return runs of ``size`` items that follow each other: item i is items i stride to i stride + size, ``[size, ...]``.

    Raises DataError for sizes below 1, and for a data set shorter than a window.
    """
    if size < 1 or stride < 1 or len(dataset) < size:
        raise DataError(
            f"windowed: expected 1 <= size <= {len(dataset)} items and stride >= 1, got {size} and {stride}; "
            "take a shorter window"
        )
    return _Windowed(dataset, size, stride)


def _places(index: Index, n: int) -> np.ndarray:
    """Return ``index`` as an array in 0 .. n-1; raises IndexError for others, as sequences do."""
    places = np.asarray(index)
    if places.size and not (-n <= places.min() and places.max() < n):
        raise IndexError(f"expected an index in 0 .. {n - 1}, got {places.min()} .. {places.max()}")
    return np.where(places < 0, places + n, places)


class _Cached:
    """Items kept once they are read; ``load`` and ``save`` know where."""

    def __init__(self, source: Dataset[Item], load: Callable[[int], Item | None], save: Callable[[int, Item], None]):
        self.source, self.load, self.save = source, load, save

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Index, /) -> Item:
        places = _places(index, len(self))
        if places.ndim == 0:
            return self._item(int(places))
        items = [self._item(int(i)) for i in places]
        return tuple(np.stack(rows) for rows in zip(*items, strict=True))

    def _item(self, i: int) -> Item:
        item = self.load(i)
        if item is None:
            item = tuple(np.asarray(array) for array in self.source[i])
            self.save(i, item)
        return item


class _Memory:
    """Items in a dict that is shared by threads; a pickled one arrives empty, so that every process fills its own."""

    def __init__(self) -> None:
        self.items: dict[int, Item] = {}
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[type[_Memory], tuple[()]]:
        return _Memory, ()

    def load(self, i: int) -> Item | None:
        return self.items.get(i)

    def save(self, i: int, item: Item) -> None:
        with self.lock:
            self.items[i] = item


class _Disk:
    """Items as files of a folder, a thousand to a folder of their own, each written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, i: int) -> Path:
        return self.folder / f"{i // 1000:06}" / f"{i}.npz"

    def load(self, i: int) -> Item | None:
        try:
            found = load_arrays(self.path(i))
            return tuple(found[f"arr_{k}"] for k in range(len(found)))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"cached: expected to read {self.path(i)}, got {error}; may you read it?") from error
        except (ValueError, KeyError):
            return None  # damaged since: it is made again

    def save(self, i: int, item: Item) -> None:
        if any(array.dtype.hasobject for array in item):
            raise DataError(f"cached: expected arrays of numbers or texts, got objects in item {i}; cache in memory")
        path = self.path(i)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cached: expected to make {path.parent}, got {error}; may you write there?") from error
        write_atomic(path, lambda file: np.savez(file, *item))


def cached(dataset: Dataset[Item], folder: str | os.PathLike[str] | None = None, key: str = "") -> Dataset[Item]:
    """Return the items of ``dataset``, each read once and then kept: in memory, or as a file in ``folder``.

    Files serve later runs, and the workers of one. ``key`` names what the items are (their source, their size); a folder
    of another key or number of items is a DataError, because its items would be taken for these. Worker processes
    each have a memory of their own.
    """
    if folder is None:
        memory = _Memory()
        return _Cached(dataset, memory.load, memory.save)
    disk = _Disk(Path(folder))
    facts = {"format": 1, "items": len(dataset), "key": key}
    note = disk.folder / "cache.json"
    try:
        disk.folder.mkdir(parents=True, exist_ok=True)
        if not note.exists():
            if any(not path.name.startswith(".") for path in disk.folder.iterdir()):
                raise DataError(
                    f"cached: expected a new folder or a cache, got {disk.folder} with other files; name another"
                )
            write_atomic(note, json.dumps(facts).encode())
        found = json.loads(note.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cached: expected a folder to write to, got {disk.folder}: {error}") from error
    if found != facts:
        raise DataError(f"cached: {disk.folder}: expected a cache of {facts}, got one of {found}; name another folder")
    return _Cached(dataset, disk.load, disk.save)
