"""Data sets: items by index, as tuples of arrays; knows neither batches nor epochs, files nor devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np

from wgpu_nn.errors import DataError

__all__ = ["ArrayDataset", "Dataset", "InMemory", "Index", "Item", "in_memory", "mapped", "shuffled", "split", "subset"]

Item: TypeAlias = tuple[np.ndarray, ...]
Index: TypeAlias = "int | np.ndarray"


@runtime_checkable
class Dataset(Protocol):
    """What a DataLoader reads: a length, and items by index.

    An index yields one item, a tuple of arrays; an array of n indices yields a tuple of arrays stacked on a first axis
    of n.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: Index, /) -> Item: ...


@runtime_checkable
class InMemory(Dataset, Protocol):
    """A data set that knows whether it holds all items in memory, and gives the same ones each time."""

    @property
    def in_memory(self) -> bool:
        """Whether all items are in memory, the same ones each time."""
        ...


def in_memory(dataset: Dataset) -> bool:
    """Say whether ``dataset`` holds all items in memory, and gives the same ones each time; one that does not say, not."""
    return isinstance(dataset, InMemory) and dataset.in_memory


class ArrayDataset:
    """Arrays with one first axis, in step: item i is row i of each. The arrays are kept, not copied.

    Raises DataError for no array, arrays of rank 0, first axes that differ, and no rows.
    """

    __slots__ = ("arrays",)

    def __init__(self, *arrays: np.ndarray) -> None:
        self.arrays: Item = tuple(np.asarray(array) for array in arrays)
        lengths = [array.shape[0] if array.ndim else None for array in self.arrays]
        if not lengths or None in lengths or len(set(lengths)) > 1:
            shapes = ", ".join(str(list(array.shape)) for array in self.arrays) or "none"
            raise DataError(f"ArrayDataset: expected arrays of one first axis, got {shapes}; one row for each item")
        if lengths == [0] * len(lengths):
            raise DataError("ArrayDataset: expected at least one item, got none; is the source empty?")

    @property
    def in_memory(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Index, /) -> Item:
        # NOTE: [...] keeps a single scalar an array; a row of a rank-1 array would come out as a NumPy scalar.
        return tuple(np.asarray(array[index, ...]) for array in self.arrays)


class _Subset:
    """Items of another data set, chosen and ordered by an index array."""

    __slots__ = ("indices", "source")

    def __init__(self, source: Dataset, indices: np.ndarray) -> None:
        self.source = source
        self.indices = indices

    @property
    def in_memory(self) -> bool:
        return in_memory(self.source)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Index, /) -> Item:
        chosen = self.indices[index]
        return self.source[chosen if chosen.ndim else int(chosen)]


class _Mapped:
    """Items of another data set as a function makes them."""

    __slots__ = ("function", "source")

    def __init__(self, source: Dataset, function: Callable[[Item], Item]) -> None:
        self.source = source
        self.function = function

    @property
    def in_memory(self) -> bool:
        return in_memory(self.source)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Index, /) -> Item:
        chosen = np.asarray(index)
        if chosen.ndim:
            return self.function(self.source[chosen])
        return tuple(array[0, ...] for array in self.function(self.source[chosen.reshape(1)]))


def mapped(dataset: Dataset, function: Callable[[Item], Item]) -> Dataset:
    """Return the items of ``dataset`` as ``function`` makes them: cast, scaled, standardised.

    It takes and returns stacks of items, ``[n, ...]``, and must make each item by itself and the same way each time, so
    that a loop may call it once and keep the result. What draws random numbers is a loader's ``transform``.
    """
    return _Mapped(dataset, function)


def subset(dataset: Dataset, indices: Sequence[int] | np.ndarray) -> Dataset:
    """Return the items ``indices`` of ``dataset``, in that order, without a copy.

    Raises DataError for no index, and for indices that are not integers in 0 .. len(dataset) - 1.
    """
    chosen = np.asarray(indices)
    if chosen.ndim != 1 or not len(chosen):
        raise DataError(f"subset: expected a list of indices, got shape {list(chosen.shape)}; choose at least one item")
    if not np.issubdtype(chosen.dtype, np.integer):
        raise DataError(f"subset: expected integer indices, got {chosen.dtype}; use np.flatnonzero on a mask")
    if chosen.min() < 0 or chosen.max() >= len(dataset):
        raise DataError(
            f"subset: expected indices in 0 .. {len(dataset) - 1}, got {chosen.min()} .. {chosen.max()}; "
            "count from the start"
        )
    return _Subset(dataset, chosen.astype(np.int64))


def split(dataset: Dataset, parts: float | Sequence[int], seed: int) -> tuple[Dataset, ...]:
    """Shuffle ``dataset`` by ``seed`` and cut it: a fraction gives that part and the rest, counts give one part each.

    ``split(digits, 0.9, seed=0)`` and ``split(digits, [9000, 1000], seed=0)`` agree on 10,000 items. Counts may leave
    items over. Raises DataError for a part that would be empty and for more items than there are.
    """
    n = len(dataset)
    if isinstance(parts, int | float):
        if not 0 < parts < 1:
            raise DataError(
                f"split: expected a fraction between 0 and 1, or counts in a list, got {parts}; 0.9 is usual"
            )
        counts = [round(n * parts), n - round(n * parts)]
    else:
        counts = [int(count) for count in parts]
    if not counts or min(counts) < 1 or sum(counts) > n:
        raise DataError(
            f"split: expected parts of at least 1 and together at most {n} items, got {counts} from {parts}"
        )
    order = shuffled(n, seed)
    ends = np.cumsum(counts)
    return tuple(subset(dataset, order[end - count : end]) for count, end in zip(counts, ends, strict=True))


def shuffled(n: int, seed: int, *more: int) -> np.ndarray:
    """Return a permutation of 0 .. n-1 that depends on nothing but its arguments; the integers are not negative.

    NOTE: not Generator.permutation, whose stream NumPy may change with a release; raw Philox words and seed sequences
    are promised to stay (NEP 19).
    """
    if min(seed, *more, 0) < 0:
        raise DataError(f"shuffle: expected a seed that is not negative, got {[seed, *more]}; use its absolute value")
    # NOTE: not SeedSequence([seed, *more]), to which (2**32, 0) and (0, 1), or (5,) and (5, 0), are the same.
    words = np.random.Philox(np.random.SeedSequence(seed, spawn_key=more)).random_raw(n)
    return np.argsort(words, kind="stable")
