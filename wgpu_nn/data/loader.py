"""Batches in a reproducible order, read ahead by threads or processes; knows neither files nor devices."""

from __future__ import annotations

import weakref
from collections.abc import Generator
from typing import Any, Literal

import numpy as np

from wgpu_nn.data.collate import Batch
from wgpu_nn.data.dataset import Dataset, Item
from wgpu_nn.data.reader import Augment, Collate, EpochPlan, Reader, Transform
from wgpu_nn.data.sampling import Sampler, shuffled
from wgpu_nn.data.shelf import ahead
from wgpu_nn.data.workers import Crew, Job, Plan
from wgpu_nn.errors import DataError

__all__ = ["DataLoader", "WorkerKind", "Workers"]

WorkerKind = Literal["thread", "process"]


class Workers:
    """Where a job is done: in the caller's thread, in threads, or in processes that stay from one epoch to the next."""

    def __init__(self, job: Job, workers: int, kind: WorkerKind, prefetch: int) -> None:
        if workers < 0 or prefetch < 0 or kind not in ("thread", "process"):
            raise DataError(
                "DataLoader: expected workers >= 0, prefetch >= 0 and kind 'thread' or 'process', "
                f"got {workers}, {prefetch} and {kind!r}; one thread that reads 2 batches ahead is usual"
            )
        self.job, self.kind, self.prefetch = job, kind, prefetch
        self.workers = workers if prefetch else 0
        self._crew: Crew | None = None
        self._end: weakref.finalize[[], Workers] | None = None

    def results(self, plan: Plan) -> Generator[Any, None, None]:
        """Yield what the job makes of ``plan``, in order."""
        if self.workers == 0:
            return self.job.share(plan, 0, 1)
        return self._by_processes(plan) if self.kind == "process" else self._by_threads(plan)

    def _by_threads(self, plan: Plan) -> Generator[Any, None, None]:
        # A generator, and not the list of shares at once: one that is never started starts nothing.
        shares = [self.job.share(plan, worker, self.workers) for worker in range(self.workers)]
        yield from ahead(shares, self.prefetch, stop=_nothing)

    def _by_processes(self, plan: Plan) -> Generator[Any, None, None]:
        crew = self._hired()
        try:
            yield from ahead(crew.begin(plan), self.prefetch, crew.stop)
        except BaseException:
            crew.close()  # in the middle of a share; the next epoch starts with new ones
            raise
        crew.idle = True
        if crew is not self._crew:
            crew.close()

    def _hired(self) -> Crew:
        """Return processes that wait for work: those of the last epoch, or new ones while they work."""
        if self._crew is not None and self._crew.idle and self._crew.alive:
            return self._crew
        crew = Crew(self.job, self.workers)
        if self._crew is None or self._crew.idle or not self._crew.alive:
            self.close()
            self._crew, self._end = crew, weakref.finalize(self, crew.close)
        return crew

    def close(self) -> None:
        """End the processes that wait for another epoch."""
        if self._end is not None:
            self._end()  # once, whoever is first: this, the garbage collector, or the interpreter's end
        self._crew = self._end = None


def _nothing() -> None:
    """Threads are woken by their shelves."""


class DataLoader:
    """Cuts a data set into batches, tuples or dicts of arrays ``[batch, ...]``, epoch by epoch.

    Batch k of epoch e is a function of the data set, ``seed``, e and k alone: not of the number of workers, nor of who is
    first. So a run resumes in the middle of an epoch: it notes e and how many batches it has taken, and goes on with
    ``epoch(e, taken)``.

    The data set is asked for a whole batch by an index array; with ``collate`` (``stacked``, ``PadCollate``, or a function
    of your own) for one item after the other, which it joins. ``augment(item, generator)`` makes something else of each
    item in each epoch; its generator depends on seed, epoch and item only. ``transform`` maps whole batches, anew each time.
    What makes the same of an item each time is better part of the data set (``mapped``).

    ``workers`` threads, or processes (``kind``), read ``prefetch`` batches ahead each; 0 of either reads in the caller's
    thread. Processes are for what holds Python's lock: they are started by spawn, with a pickled copy of data set and
    functions, in the first epoch, and stay for the others until ``close`` or the loader's end. ``sampler`` chooses the
    items of each epoch (``WeightedSampler``), and stands for ``shuffle``. The last batch is smaller, unless ``drop_last``
    leaves it out or ``pad_last`` fills it: then every batch has a mask more, bool ``[batch]``, True for true items.

    Raises DataError for an empty data set, sizes that fit nothing, and, from the iteration, for whatever the data set
    or the functions raise: it names the items, and is chained from the original, or from its traceback in the process; and
    for a worker process that dies.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        shuffle: bool,
        seed: int,
        drop_last: bool = False,
        prefetch: int = 2,
        transform: Transform | None = None,
        *,
        augment: Augment | None = None,
        collate: Collate | None = None,
        sampler: Sampler | None = None,
        pad_last: bool = False,
        workers: int = 1,
        kind: WorkerKind = "thread",
    ) -> None:
        if len(dataset) == 0:
            raise DataError("DataLoader: expected at least one item, got an empty data set; is the source empty?")
        if batch_size < 1 or seed < 0:
            raise DataError(
                "DataLoader: expected batch_size >= 1 and seed >= 0, "
                f"got {batch_size} and {seed}; a batch of 64 and seed 0 are usual"
            )
        self.items = len(dataset) if sampler is None else len(sampler)
        if drop_last and self.items < batch_size:
            raise DataError(
                f"DataLoader: expected a full batch of {batch_size}, got {self.items} items; "
                "lower batch_size or leave drop_last out"
            )
        if drop_last and pad_last:
            raise DataError("DataLoader: expected drop_last or pad_last, got both; the last batch is one or the other")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle or sampler is not None
        self.seed = seed
        self.drop_last = drop_last
        self.pad_last = pad_last
        self.prefetch = prefetch
        self.transform = transform
        self.augment = augment
        self.sampler = sampler
        self._reader = Reader(dataset, seed, augment, collate, transform, pad_last)
        self._workers = Workers(self._reader, workers, kind, prefetch)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        whole, rest = divmod(self.items, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    @property
    def repeatable(self) -> bool:
        """Whether an item is made the same way each time: nothing is asked to augment or transform it."""
        return self.augment is None and self.transform is None

    def order(self, epoch: int) -> np.ndarray:
        """Return the order in which ``epoch`` visits the items: int64 ``[items]``."""
        if self.sampler is not None:
            order = np.asarray(self.sampler.order(epoch))
            if order.shape != (self.items,) or order.dtype.kind not in "iu":
                raise DataError(
                    f"DataLoader: expected {self.items} indices of the sampler for epoch {epoch}, got {order.dtype} "
                    f"{list(order.shape)}; its length is that of every epoch"
                )
            return order.astype(np.int64)
        return shuffled(self.items, self.seed, epoch) if self.shuffle else np.arange(self.items)

    def epoch(self, epoch: int, start_batch: int = 0) -> Generator[Batch, None, None]:
        """Iterate over the batches of an epoch from ``start_batch`` on.

        Leaving the loop early ends the workers; so does ``close()`` on the iterator, for one kept in a variable.
        """
        if epoch < 0 or not 0 <= start_batch <= len(self):
            raise DataError(
                f"DataLoader.epoch: expected epoch >= 0 and start_batch in 0 .. {len(self)}, "
                f"got {epoch} and {start_batch}; was batch_size changed since?"
            )
        plan = EpochPlan(epoch, self.order(epoch), self.batch_size, start_batch, len(self))
        return self._workers.results(plan)

    def first(self) -> Item:
        """Return the data set's first item as a batch of one."""
        return self._reader.read(np.arange(1), 0, "the first item")

    def whole(self) -> Item:
        """Return all items in the data set's own order, made as those of batches are: arrays ``[len(dataset), ...]``.

        Raises DataError as the iteration does, and for batches whose items differ in shape or element type.
        """
        n = len(self.dataset)
        whole: Item = ()
        for start in range(0, n, self.batch_size):
            indices = np.arange(start, min(start + self.batch_size, n))
            part: Item = self._reader.read(indices, 0, "the whole data set")
            whole = whole or tuple(np.empty((n, *array.shape[1:]), array.dtype) for array in part)
            found = [(array.shape, array.dtype) for array in part]
            expected = [((len(indices), *array.shape[1:]), array.dtype) for array in whole]
            if found != expected:
                raise DataError(
                    f"DataLoader: expected items {start} to {indices[-1]} of the shapes and types of the first, "
                    f"{expected}, got {found}; make them alike"
                )
            for array, rows in zip(whole, part, strict=True):
                array[start : start + len(indices)] = rows
        return whole

    def close(self) -> None:
        """End the worker processes that wait for another epoch; without any, nothing is to do."""
        self._workers.close()
