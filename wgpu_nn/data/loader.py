"""Batches in a reproducible order, read ahead by one thread; knows neither files nor devices."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import numpy as np

from wgpu_nn.data.dataset import Dataset, Item, shuffled
from wgpu_nn.errors import DataError

__all__ = ["DataLoader"]


class DataLoader:
    """Cuts a data set into batches, tuples of arrays ``[batch, ...]``, epoch by epoch.

    Batch k of epoch e is a function of the data set, ``seed``, e and k alone, so that a run resumes in the middle of an
    epoch. ``transform`` maps each batch, anew each time it is read (augments, say), and runs in the reading thread, as the
    data set does; what makes the same of an item each time is better part of the data set (``mapped``). ``prefetch`` is
    how many batches wait ready, and 0 reads in the caller's thread. The last batch is smaller unless ``drop_last``.

    Raises DataError for an empty data set, sizes that fit nothing, and, from the iteration, for whatever the data set
    or the transform raises: it names the items, and is chained from the original.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        shuffle: bool,
        seed: int,
        drop_last: bool = False,
        prefetch: int = 2,
        transform: Callable[[Item], Item] | None = None,
    ) -> None:
        if len(dataset) == 0:
            raise DataError("DataLoader: expected at least one item, got an empty data set; is the source empty?")
        if batch_size < 1 or prefetch < 0 or seed < 0:
            raise DataError(
                "DataLoader: expected batch_size >= 1, prefetch >= 0 and seed >= 0, "
                f"got {batch_size}, {prefetch} and {seed}; a batch of 64, 2 read ahead and seed 0 are usual"
            )
        if drop_last and len(dataset) < batch_size:
            raise DataError(
                f"DataLoader: expected a full batch of {batch_size}, got {len(dataset)} items; "
                "lower batch_size or leave drop_last out"
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.prefetch = prefetch
        self.transform = transform

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def order(self, epoch: int) -> np.ndarray:
        """Return the order in which ``epoch`` visits the items: int64 [len(dataset)]."""
        n = len(self.dataset)
        return shuffled(n, self.seed, epoch) if self.shuffle else np.arange(n)

    def epoch(self, epoch: int, start_batch: int = 0) -> Generator[Item, None, None]:
        """Iterate over the batches of an epoch from ``start_batch`` on.

        Leaving the loop early ends the reading thread; so does ``close()`` on the iterator, for one kept in a variable.
        """
        if epoch < 0 or not 0 <= start_batch <= len(self):
            raise DataError(
                f"DataLoader.epoch: expected epoch >= 0 and start_batch in 0 .. {len(self)}, "
                f"got {epoch} and {start_batch}; was batch_size changed since?"
            )
        batches = self._read(epoch, start_batch)
        return batches if self.prefetch == 0 else _ahead(batches, self.prefetch)

    def _read(self, epoch: int, start_batch: int) -> Generator[Item, None, None]:
        order = self.order(epoch)
        for k in range(start_batch, len(self)):
            indices = order[k * self.batch_size : (k + 1) * self.batch_size]
            yield self._items(indices, f"batch {k} of epoch {epoch}")

    def _items(self, indices: np.ndarray, what: str) -> Item:
        try:
            batch = self.dataset[indices]
            _check_batch(batch, len(indices))
            return batch if self.transform is None else self.transform(batch)
        except Exception as error:
            raise DataError(
                f"DataLoader: reading {what} failed, items {_listed(indices)}: "
                f"{type(error).__name__}: {error}; read them one by one with dataset[i]"
            ) from error

    def first(self) -> Item:
        """Return the data set's first item as a batch of one."""
        return self._items(np.arange(1), "the first item")

    def whole(self) -> Item:
        """Return all items in the data set's own order, mapped as batches are: arrays ``[len(dataset), ...]``.

        Raises DataError as the iteration does, and for batches whose items differ in shape or element type.
        """
        n = len(self.dataset)
        whole: Item = ()
        for start in range(0, n, self.batch_size):
            indices = np.arange(start, min(start + self.batch_size, n))
            part = self._items(indices, "the whole data set")
            whole = whole or tuple(np.empty((n, *array.shape[1:]), array.dtype) for array in part)
            found = [(array.shape, array.dtype) for array in part]
            expected = [((len(indices), *array.shape[1:]), array.dtype) for array in whole]
            if found != expected:
                raise DataError(
                    f"DataLoader: expected items {_listed(indices)} of the shapes and types of the first, {expected}, "
                    f"got {found}; make them alike"
                )
            for array, rows in zip(whole, part, strict=True):
                array[start : start + len(indices)] = rows
        return whole


def _check_batch(batch: object, n: int) -> None:
    rows = [getattr(array, "shape", ())[:1] for array in batch] if isinstance(batch, tuple) else type(batch).__name__
    if rows != [(n,)] * len(rows) or not rows:
        raise DataError(f"dataset: expected a tuple of arrays of first axis {n}, got {rows}; it must take index arrays")


def _listed(indices: np.ndarray) -> str:
    shown = ", ".join(str(i) for i in indices[:16])
    return f"[{shown}]" if len(indices) <= 16 else f"[{shown}, ... {len(indices)} in all]"


class _Shelf:
    """Where the reading thread lays batches down: at most ``room`` of them, then the end or what went wrong."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.ready: deque[Item] = deque()
        self.changed = threading.Condition()
        self.ended = False
        self.failure: BaseException | None = None
        self.abandoned = False

    def fill(self, batches: Generator[Item, None, None]) -> None:
        failure: BaseException | None = None
        try:
            with closing(batches):
                for batch in batches:
                    with self.changed:
                        self.changed.wait_for(lambda: self.abandoned or len(self.ready) < self.room)
                        if self.abandoned:
                            return
                        self.ready.append(batch)
                        self.changed.notify_all()
        except BaseException as error:
            failure = error
        finally:
            with self.changed:
                self.ended, self.failure = True, failure
                self.changed.notify_all()

    def take(self) -> Iterator[Item]:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.ready or self.ended)
                if not self.ready:
                    break
                batch = self.ready.popleft()
                self.changed.notify_all()
            yield batch
        if self.failure is not None:
            raise self.failure

    def abandon(self) -> None:
        with self.changed:
            self.abandoned = True
            self.ready.clear()
            self.changed.notify_all()


def _ahead(batches: Generator[Item, None, None], room: int) -> Generator[Item, None, None]:
    """Yield ``batches``, read by a thread that lives from the first item to the last, or until this is closed."""
    shelf = _Shelf(room)
    # Daemon: a process that is told to exit does not wait for a slow file.
    thread = threading.Thread(target=shelf.fill, args=(batches,), name="wgpu_nn-loader", daemon=True)
    thread.start()
    try:
        yield from shelf.take()
    finally:
        shelf.abandon()
        if thread is not threading.current_thread():  # the garbage collector may close us from the thread itself
            thread.join()
