"""Items to batches: stacked, padded, with a mask; items are arrays, numbers, texts, or tuples, lists and dicts of such."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from wgpu_nn.errors import DataError

__all__ = ["Batch", "PadCollate", "rows_of", "stacked", "with_mask"]

Batch: TypeAlias = Any
"""A tuple or dict of arrays ``[n, ...]`` (nested ones, too), or whatever a collate of your own makes."""

MASK = "mask"  # the mask's name in batches that are dicts


def mapped_leaves(tree: Batch, function: Callable[[Any], Any]) -> Batch:
    """Return ``tree`` with ``function`` applied to whatever is no tuple, list or dict."""
    if isinstance(tree, dict):
        return {name: mapped_leaves(part, function) for name, part in tree.items()}
    if isinstance(tree, tuple | list):
        return tuple(mapped_leaves(part, function) for part in tree)
    return function(tree)


def stacked(items: Sequence[Any]) -> Batch:
    """Stack items of one structure: n tuples or dicts of ``[...]`` -> one of arrays ``[n, ...]``. Lists become tuples.

    Raises DataError where structures, shapes or kinds differ, naming the first item that does and the place in it.
    """
    if not items:
        raise DataError("stacked: expected at least one item, got none; is the batch empty?")
    return _stacked(items, "item")


def _stacked(items: Sequence[Any], path: str) -> Batch:
    first = items[0]
    if isinstance(first, dict):
        _alike(items, path, lambda item: isinstance(item, dict) and sorted(item), "the keys")
        return {name: _stacked([item[name] for item in items], f"{path}[{name!r}]") for name in first}
    if isinstance(first, tuple | list):
        _alike(items, path, lambda item: isinstance(item, tuple | list) and len(item), "the length")
        return tuple(_stacked([item[i] for item in items], f"{path}[{i}]") for i in range(len(first)))
    arrays = [np.asarray(item) for item in items]
    if arrays[0].dtype == object:
        raise DataError(
            f"stacked: expected arrays, numbers, texts, tuples or dicts, got {type(first).__name__} as {path}; "
            "convert it, or give a collate of your own"
        )
    _alike(arrays, path, lambda array: array.shape, "the shape")
    _alike(arrays, path, lambda array: array.dtype.kind, "the kind")
    return np.stack(arrays)


def _alike(items: Sequence[Any], path: str, look: Callable[[Any], Any], what: str) -> None:
    expected = look(items[0])
    for i, item in enumerate(items):
        if look(item) != expected:
            raise DataError(
                f"stacked: expected {what} of the first for {path}, {expected}, got {look(item)} at place {i} of the "
                "batch; make items alike, or pad them (PadCollate)"
            )


@dataclass(frozen=True, slots=True)
class PadCollate:
    """Stacks items whose ``fields`` (places of a tuple, keys of a dict) are sequences of different lengths, padded to one.

    A padded field is ``[n, longest, ...]``; its lengths, int32 ``[n]``, follow: at the end of a tuple, as
    ``<key>_lengths`` in a dict. The longest is that of the batch, rounded up to a multiple of ``multiple_of`` (few
    different sizes mean few captured steps), or ``length`` for all batches: a longer sequence is then a DataError.
    """

    fields: tuple[int | str, ...] = (0,)
    value: float = 0
    multiple_of: int = 1
    length: int | None = None

    def __post_init__(self) -> None:
        if not self.fields or self.multiple_of < 1 or (self.length is not None and self.length < 1):
            raise DataError(
                "PadCollate: expected at least one field, multiple_of >= 1 and length >= 1, "
                f"got {self.fields}, {self.multiple_of} and {self.length}"
            )

    def __call__(self, items: Sequence[Any]) -> Batch:
        """n items -> a batch; raises DataError as ``stacked`` does, and for fields that are no sequences."""
        if not items:
            raise DataError("PadCollate: expected at least one item, got none; is the batch empty?")
        if isinstance(items[0], dict):
            lengths = {field: self._lengths(items, field) for field in self.fields}
            rows = [{**item, **{f: self._padded(item[f], max(n)) for f, n in lengths.items()}} for item in items]
            return {**stacked(rows), **{f"{f}_lengths": np.array(n, np.int32) for f, n in lengths.items()}}
        lengths = {field: self._lengths(items, field) for field in self.fields}
        rows = [
            tuple(self._padded(part, max(lengths[i])) if i in lengths else part for i, part in enumerate(item))
            for item in items
        ]
        return (*stacked(rows), *(np.array(n, np.int32) for n in lengths.values()))

    def _lengths(self, items: Sequence[Any], field: int | str) -> list[int]:
        try:
            lengths = [len(item[field]) for item in items]
        except (LookupError, TypeError) as error:
            raise DataError(
                f"PadCollate: expected a sequence as field {field!r} of every item, got {type(error).__name__}: {error}; "
                "name the fields to pad"
            ) from error
        if self.length is not None and max(lengths) > self.length:
            raise DataError(
                f"PadCollate: expected at most {self.length} elements in field {field!r}, got {max(lengths)}; cut it"
            )
        return lengths

    def _padded(self, sequence: Any, longest: int) -> np.ndarray:
        array = np.asarray(sequence)
        total = self.length or max(1, -(-longest // self.multiple_of)) * self.multiple_of
        out = np.full((total, *array.shape[1:]), self.value, array.dtype)
        out[: len(array)] = array
        return out


def rows_of(batch: Batch) -> list[int | None] | None:
    """Return the first axes of a batch's arrays, None for what has none; None for what is no tuple or dict."""
    if not isinstance(batch, tuple | dict):
        return None
    found: list[int | None] = []

    def look(leaf: Any) -> None:
        found.append(leaf.shape[0] if isinstance(leaf, np.ndarray) and leaf.ndim else None)

    mapped_leaves(batch, look)
    return found


def with_mask(batch: Batch, count: int, size: int) -> Batch:
    """Repeat the last of a batch's ``count`` items up to ``size``, and add the mask of the true ones, bool ``[size]``.

    It comes last in a tuple, and is called ``mask`` in a dict. A repeated item is a valid one: no NaN comes of it.
    """
    if rows_of(batch) is None:
        raise DataError(f"pad_last: expected a batch that is a tuple or a dict, got {type(batch).__name__}")
    places = np.minimum(np.arange(size), count - 1)
    filled = batch if count == size else mapped_leaves(batch, lambda array: array[places])
    mask = np.arange(size) < count
    return {**filled, MASK: mask} if isinstance(filled, dict) else (*filled, mask)
