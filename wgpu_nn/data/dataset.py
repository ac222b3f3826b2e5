"""Data sets: items by index, as tuples of arrays; knows neither batches nor epochs, files nor devices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self, TypeAlias, TypeVar, overload, runtime_checkable

import numpy as np

from wgpu_nn.data.collate import stacked
from wgpu_nn.data.sampling import shuffled
from wgpu_nn.errors import DataError

__all__ = [
    "ArrayDataset",
    "Dataset",
    "InMemory",
    "Index",
    "Item",
    "Labelled",
    "Source",
    "in_memory",
    "labels_of",
    "mapped",
    "split",
    "subset",
]

Item: TypeAlias = tuple[np.ndarray, ...]
Index: TypeAlias = "int | np.ndarray"
Parts: TypeAlias = "float | Sequence[int]"
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

LABELS_AT_ONCE = 1024  # items read together where labels must be looked up


@runtime_checkable
class Dataset(Protocol[T_co]):
    """What a DataLoader reads: a length, and items by index.

    An index yields one item, a tuple of arrays as a rule; an array of n indices yields the same stacked on a first axis
    of n. A data set that knows only single indices, or whose items are alike in nothing, is read with a ``collate``.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: Index, /) -> T_co: ...


@runtime_checkable
class InMemory(Dataset[Any], Protocol):
    """A data set that knows whether it holds all items in memory, and gives the same ones each time."""

    @property
    def in_memory(self) -> bool:
        """Whether all items are in memory, the same ones each time."""
        ...


@runtime_checkable
class Labelled(Dataset[Any], Protocol):
    """A data set that knows its labels without reading its items."""

    @property
    def labels(self) -> np.ndarray:
        """The items' classes, or whatever else comes last in an item: ``[len(self), ...]``."""
        ...


def in_memory(dataset: Dataset[Any]) -> bool:
    """Say whether ``dataset`` holds all items in memory, and gives the same ones each time; one that does not say, not."""
    return isinstance(dataset, InMemory) and dataset.in_memory


def labels_of(dataset: Dataset[Any]) -> np.ndarray:
    """Return what comes last in the items of ``dataset``, ``[len(dataset), ...]``: looked up, or read with the items."""
    if isinstance(dataset, _Subset):
        return labels_of(dataset.source)[dataset.indices]
    if isinstance(dataset, Labelled):
        return dataset.labels
    n = len(dataset)
    starts = range(0, n, LABELS_AT_ONCE)
    return np.concatenate([dataset[np.arange(i, min(i + LABELS_AT_ONCE, n))][-1] for i in starts])


class Source(ABC):
    """A data set that can be cut: its parts are of its own class, and know what it knows (names, classes, sizes)."""

    __slots__ = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: Index, /) -> Item: ...

    @property
    @abstractmethod
    def labels(self) -> np.ndarray:
        """What comes last in the items: ``[len(self), ...]``."""

    @abstractmethod
    def take(self, indices: np.ndarray) -> Self:
        """Return the items ``indices``, in that order."""

    def split(self, parts: Parts, seed: int, stratify: bool | np.ndarray = False) -> tuple[Self, ...]:
        """Shuffle by ``seed`` and cut, as the function ``split`` does."""
        return tuple(self.take(indices) for indices in _cut(self, parts, seed, stratify))


class ArrayDataset(Source):
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

    @property
    def labels(self) -> np.ndarray:
        return self.arrays[-1]

    def take(self, indices: np.ndarray) -> ArrayDataset:
        """Return the rows ``indices``, copied."""
        return ArrayDataset(*(array[indices] for array in self.arrays))

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Index, /) -> Item:
        # NOTE: [...] keeps a single scalar an array; a row of a rank-1 array would come out as a NumPy scalar.
        return tuple(np.asarray(array[index, ...]) for array in self.arrays)


class _Subset:
    """Items of another data set, chosen and ordered by an index array."""

    __slots__ = ("indices", "source")

    def __init__(self, source: Dataset[Any], indices: np.ndarray) -> None:
        self.source = source
        self.indices = indices

    @property
    def in_memory(self) -> bool:
        return in_memory(self.source)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Index, /) -> Any:
        chosen = self.indices[index]
        return self.source[chosen if chosen.ndim else int(chosen)]


class _Mapped:
    """Items of another data set as a function makes them, many at once."""

    __slots__ = ("function", "source")

    def __init__(self, source: Dataset[Item], function: Callable[[Item], Item]) -> None:
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


class _MappedEach:
    """Items of another data set as a function makes them, one by one."""

    __slots__ = ("function", "source")

    def __init__(self, source: Dataset[Any], function: Callable[[Any], Any]) -> None:
        self.source = source
        self.function = function

    @property
    def in_memory(self) -> bool:
        return in_memory(self.source)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: Index, /) -> Any:
        chosen = np.asarray(index)
        if chosen.ndim == 0:
            return self.function(self.source[int(chosen)])
        return stacked([self.function(self.source[i]) for i in chosen.tolist()])


@overload
def mapped(dataset: Dataset[Item], function: Callable[[Item], Item]) -> Dataset[Item]: ...
@overload
def mapped(dataset: Dataset[Any], function: Callable[[Any], Any], each: bool) -> Dataset[Any]: ...
def mapped(dataset: Dataset[Any], function: Callable[[Any], Any], each: bool = False) -> Dataset[Any]:
    """Return the items of ``dataset`` as ``function`` makes them: cast, scaled, standardised.

    It takes and returns stacks of items, ``[n, ...]``, or single items with ``each``, and must make each item by itself and
    the same way each time, so that a loop may call it once and keep the result. What draws random numbers is a loader's
    ``augment``.
    """
    return _MappedEach(dataset, function) if each else _Mapped(dataset, function)


def subset(dataset: Dataset[T], indices: Sequence[int] | np.ndarray) -> Dataset[T]:
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


def split(dataset: Dataset[T], parts: Parts, seed: int, stratify: bool | np.ndarray = False) -> tuple[Dataset[T], ...]:
    """Shuffle ``dataset`` by ``seed`` and cut it: a fraction gives that part and the rest, counts give one part each.

    ``split(digits, 0.9, seed=0)`` and ``split(digits, [9000, 1000], seed=0)`` agree on 10,000 items. Counts may leave
    items over. With ``stratify`` every part has its share of each class, to within one item: by the data set's own
    labels, or those given, ``[len(dataset)]``. Raises DataError for a part that would be empty, for more items than there
    are, for labels that are no classes, and for a class of fewer items than there are parts.
    """
    return tuple(subset(dataset, indices) for indices in _cut(dataset, parts, seed, stratify))


def _cut(dataset: Dataset[Any], parts: Parts, seed: int, stratify: bool | np.ndarray) -> list[np.ndarray]:
    """Return the indices of each part."""
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
            f"split: expected parts of at least 1 and together at most {n} items, got {counts} from {parts}; "
            "take other parts, or more items"
        )
    order = shuffled(n, seed)
    if stratify is False:
        ends = np.cumsum(counts)
        return [order[end - count : end] for count, end in zip(counts, ends, strict=True)]
    classes = _classes(labels_of(dataset) if stratify is True else np.asarray(stratify), n, len(counts))
    chosen: list[np.ndarray] = []
    left = order
    for count in counts:
        # Class by class, every (n / count)-th item: each class gives its share, rounded, and all give count together.
        grouped = left[np.argsort(classes[left], kind="stable")]
        steps = np.arange(len(left) + 1) * count // len(left)
        inside = np.zeros(n, bool)
        inside[grouped[np.diff(steps) > 0]] = True
        chosen.append(left[inside[left]])
        left = left[~inside[left]]
    return chosen


def _classes(labels: np.ndarray, n: int, parts: int) -> np.ndarray:
    """Return the labels as numbers from 0."""
    if labels.shape != (n,) or labels.dtype.kind == "f":
        raise DataError(
            f"split: stratify: expected one class for each of {n} items, got {labels.dtype} {list(labels.shape)}; "
            "give an array of classes, or leave it out"
        )
    names, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if counts.min() < parts:
        raise DataError(
            f"split: stratify: expected at least {parts} items of each class, got {counts.min()} of class "
            f"{names[counts.argmin()]}; add some, leave the class out, or do not stratify"
        )
    return places
