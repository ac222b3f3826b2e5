"""Streams: items one after the other, of a length that nobody knows; batches of them, in a DataLoader's order and manner."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from wgpu_nn.data.collate import Batch, stacked, with_mask
from wgpu_nn.data.loader import WorkerKind, Workers
from wgpu_nn.data.reader import Augment, Collate, Transform
from wgpu_nn.data.sampling import item_generator, shuffled
from wgpu_nn.data.shelf import ahead
from wgpu_nn.errors import DataError

__all__ = [
    "ByEpoch",
    "Selective",
    "Stream",
    "StreamLoader",
    "filtered_stream",
    "mapped_stream",
    "prefetched",
    "shuffled_stream",
]

Wanted: TypeAlias = Callable[[int], bool]

Stream: TypeAlias = Iterable[Any]
"""What can be iterated over again and again, with the same items in the same order; a generator cannot, its class can."""


@runtime_checkable
class Selective(Protocol):
    """A stream that passes over items without making them."""

    def __iter__(self) -> Iterator[Any]: ...

    def select(self, wanted: Wanted) -> Iterator[Any]:
        """Iterate over the items i for which ``wanted(i)`` is true; it is asked once for each i, from 0 on."""
        ...


@runtime_checkable
class ByEpoch(Protocol):
    """A stream whose items or order differ from epoch to epoch."""

    def at(self, epoch: int) -> Stream:
        """Return the stream of ``epoch``."""
        ...


def selected(stream: Stream, wanted: Wanted) -> Iterator[Any]:
    """Iterate over the items i of ``stream`` for which ``wanted(i)`` is true."""
    if isinstance(stream, Selective):
        return stream.select(wanted)
    return (item for i, item in enumerate(stream) if wanted(i))


def at_epoch(stream: Stream | ByEpoch, epoch: int) -> Stream:
    """Return what ``stream`` is in ``epoch``."""
    return stream.at(epoch) if isinstance(stream, ByEpoch) else stream


@dataclass(frozen=True, slots=True)
class _Mapped:
    source: Stream | ByEpoch
    function: Callable[[Any], Any]

    def at(self, epoch: int) -> Stream:
        return _Mapped(at_epoch(self.source, epoch), self.function)

    def __iter__(self) -> Iterator[Any]:
        return map(self.function, at_epoch(self.source, 0))

    def select(self, wanted: Wanted) -> Iterator[Any]:
        return map(self.function, selected(at_epoch(self.source, 0), wanted))


@dataclass(frozen=True, slots=True)
class _Filtered:
    source: Stream | ByEpoch
    keep: Callable[[Any], bool]

    def at(self, epoch: int) -> Stream:
        return _Filtered(at_epoch(self.source, epoch), self.keep)

    def __iter__(self) -> Iterator[Any]:
        return filter(self.keep, at_epoch(self.source, 0))


@dataclass(frozen=True, slots=True)
class _Shuffled:
    source: Stream | ByEpoch
    buffer: int
    seed: int
    epoch: int = 0

    def at(self, epoch: int) -> Stream:
        return _Shuffled(at_epoch(self.source, epoch), self.buffer, self.seed, epoch)

    def __iter__(self) -> Iterator[Any]:
        items = iter(at_epoch(self.source, self.epoch))
        held: list[Any] = []
        for block in itertools.count():
            # Half of the buffer goes, in random order, and is filled again: an item moves as far as chance has it.
            fresh = list(itertools.islice(items, self.buffer - len(held)))
            held += fresh
            held = [held[i] for i in shuffled(len(held), self.seed, self.epoch, block)]
            go = len(held) if len(fresh) == 0 or len(held) < self.buffer else (self.buffer + 1) // 2
            yield from held[:go]
            held = held[go:]
            if not held:
                return


@dataclass(frozen=True, slots=True)
class _Prefetched:
    source: Stream | ByEpoch
    n: int

    def at(self, epoch: int) -> Stream:
        return _Prefetched(at_epoch(self.source, epoch), self.n)

    def __iter__(self) -> Iterator[Any]:
        return ahead([_generator(at_epoch(self.source, 0))], self.n, stop=lambda: None)


def _generator(stream: Stream) -> Generator[Any, None, None]:
    yield from stream


def mapped_stream(stream: Stream | ByEpoch, function: Callable[[Any], Any]) -> Stream:
    """Return the items of ``stream`` as ``function`` makes them, one by one; those that are passed over are not made."""
    return _Mapped(stream, function)


def filtered_stream(stream: Stream | ByEpoch, keep: Callable[[Any], bool]) -> Stream:
    """Return the items of ``stream`` for which ``keep`` is true."""
    return _Filtered(stream, keep)


def shuffled_stream(stream: Stream | ByEpoch, buffer: int, seed: int) -> Stream:
    """Return the items of ``stream`` in an order that differs from epoch to epoch, with ``buffer`` of them in memory.

    The larger the buffer, the better the shuffle; one of the stream's length is a whole one. Raises DataError for a
    buffer below 2 and a negative seed.
    """
    if buffer < 2 or seed < 0:
        raise DataError(
            f"shuffled_stream: expected buffer >= 2 and seed >= 0, got {buffer} and {seed}; 10,000 is usual"
        )
    return _Shuffled(stream, buffer, seed)


def prefetched(stream: Stream | ByEpoch, n: int) -> Stream:
    """Return the items of ``stream``, read by a thread up to ``n`` ahead; it ends with the iteration. n >= 1, or DataError."""
    if n < 1:
        raise DataError(f"prefetched: expected n >= 1, got {n}; 2 is usual")
    return _Prefetched(stream, n)


@dataclass(frozen=True, slots=True)
class _StreamPlan:
    epoch: int
    start: int


@dataclass(frozen=True, slots=True)
class _StreamReader:
    """Every worker walks along the whole stream, and makes the batches whose turn is its own."""

    stream: Stream | ByEpoch
    size: int
    seed: int
    drop_last: bool
    pad_last: bool
    augment: Augment | None
    collate: Collate
    transform: Transform | None

    def share(self, plan: _StreamPlan, worker: int, workers: int) -> Generator[Batch, None, None]:
        first = plan.start + worker

        def wanted(i: int) -> bool:
            k = i // self.size
            return k >= first and (k - first) % workers == 0

        items = selected(at_epoch(self.stream, plan.epoch), wanted)
        for k in itertools.count(first, workers):
            batch: list[Any] = []
            at = k * self.size
            try:
                for item in itertools.islice(items, self.size):
                    if self.augment is not None:
                        item = self.augment(item, item_generator(self.seed, plan.epoch, at))
                    batch.append(item)
                    at += 1
                if not batch or (self.drop_last and len(batch) < self.size):
                    return
                joined = self.collate(batch)
                made = joined if self.transform is None else self.transform(joined)
                made = with_mask(made, len(batch), self.size) if self.pad_last else made
            except Exception as error:
                where = f"item {at}" if len(batch) < self.size else f"items {k * self.size} to {at - 1}"
                raise DataError(
                    f"StreamLoader: reading batch {k} of epoch {plan.epoch} failed at {where}: "
                    f"{type(error).__name__}: {error}"
                ) from error
            yield made


class StreamLoader:
    """Cuts a stream into batches, epoch by epoch, as DataLoader does a data set: same words, same promises.

    Each of ``workers`` walks along the whole stream and makes its batches only, so the batches do not depend on their
    number; a stream that is Selective (all readers here are) passes over the others without making them. An epoch goes
    on at batch n with ``epoch(e, n)`` in the same way. Shuffle with ``shuffled_stream``. Raises DataError for sizes that
    fit nothing and for generators, which can be read once only, and from the iteration as DataLoader does.
    """

    def __init__(
        self,
        stream: Stream | ByEpoch,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = False,
        prefetch: int = 2,
        transform: Transform | None = None,
        *,
        augment: Augment | None = None,
        collate: Collate = stacked,
        pad_last: bool = False,
        workers: int = 1,
        kind: WorkerKind = "thread",
    ) -> None:
        if batch_size < 1 or seed < 0 or (drop_last and pad_last):
            raise DataError(
                "StreamLoader: expected batch_size >= 1, seed >= 0, and drop_last or pad_last, "
                f"got {batch_size}, {seed}, {drop_last} and {pad_last}"
            )
        if isinstance(stream, Iterator):
            raise DataError(
                f"StreamLoader: expected what can be iterated over again each epoch, got {type(stream).__name__}, which "
                "ends once; give a list, or an object whose __iter__ makes a new iterator"
            )
        self.stream = stream
        self.batch_size = batch_size
        job = _StreamReader(stream, batch_size, seed, drop_last, pad_last, augment, collate, transform)
        self._workers = Workers(job, workers, kind, prefetch)

    def epoch(self, epoch: int, start_batch: int = 0) -> Generator[Batch, None, None]:
        """Iterate over the batches of an epoch from ``start_batch`` on; one beyond the end is the end."""
        if epoch < 0 or start_batch < 0:
            raise DataError(f"StreamLoader.epoch: expected epoch and start_batch >= 0, got {epoch} and {start_batch}")
        return self._workers.results(_StreamPlan(epoch, start_batch))

    def close(self) -> None:
        """End the worker processes that wait for another epoch; without any, nothing is to do."""
        self._workers.close()
