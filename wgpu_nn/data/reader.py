"""What a worker does for a DataLoader: reads a batch's items, augments and joins them; where it runs, others know."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wgpu_nn.data.collate import Batch, rows_of, stacked, with_mask
from wgpu_nn.data.dataset import Dataset
from wgpu_nn.data.sampling import item_generator
from wgpu_nn.errors import DataError

__all__ = ["Augment", "Collate", "EpochPlan", "Reader", "Transform"]

Augment = Callable[[Any, np.random.Generator], Any]
Collate = Callable[[Sequence[Any]], Batch]
Transform = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class EpochPlan:
    """The batches ``start`` to ``batches`` of an epoch: batch k has the items ``order[k size : (k + 1) size]``."""

    epoch: int
    order: np.ndarray
    size: int
    start: int
    batches: int


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads batches of a data set; ``augment`` and ``collate`` see items, ``transform`` whole batches."""

    dataset: Dataset[Any]
    seed: int
    augment: Augment | None
    collate: Collate | None
    transform: Transform | None
    pad_last: bool

    def share(self, plan: EpochPlan, worker: int, workers: int) -> Generator[Batch, None, None]:
        """Yield every batch of ``plan`` that is the turn of ``worker``."""
        for k in range(plan.start + worker, plan.batches, workers):
            indices = plan.order[k * plan.size : (k + 1) * plan.size]
            batch = self.read(indices, plan.epoch, f"batch {k} of epoch {plan.epoch}")
            yield with_mask(batch, len(indices), plan.size) if self.pad_last else batch

    def read(self, indices: np.ndarray, epoch: int, what: str) -> Batch:
        """Return the items ``indices`` as a batch; raises DataError that names them, chained from what went wrong."""
        together = self.augment is None and self.collate is None
        at: int | None = None
        read = False
        try:
            if together:
                batch: Batch = self.dataset[indices]
                _check(batch, len(indices))
            else:
                items: list[Any] = []
                for i in indices.tolist():
                    at = i
                    item = self.dataset[i]
                    items.append(self._augmented(item, epoch, i))
                at = None
                batch = (self.collate or stacked)(items)
            read = True
            return batch if self.transform is None else self.transform(batch)
        except Exception as error:
            at = self._culprit(indices) if together and not read else at
            way_out = f"it is item {at}" if at is not None else "read them one by one with dataset[i]"
            raise DataError(
                f"DataLoader: reading {what} failed, items {_listed(indices)}: "
                f"{type(error).__name__}: {error}; {way_out}"
            ) from error

    def _augmented(self, item: Any, epoch: int, i: int) -> Any:
        return item if self.augment is None else self.augment(item, item_generator(self.seed, epoch, i))

    def _culprit(self, indices: np.ndarray) -> int | None:
        """Return the item that fails by itself, if one does."""
        for i in indices:
            try:
                self.dataset[np.array([i])]
            except Exception:  # what came of the whole batch is on its way
                return int(i)
        return None


def _check(batch: object, n: int) -> None:
    rows = rows_of(batch)
    if not rows or rows != [n] * len(rows):
        raise DataError(
            f"dataset: expected a tuple or dict of arrays of first axis {n}, got {type(batch).__name__} of {rows}; "
            "it must take index arrays, or the loader a collate (stacked, PadCollate)"
        )


def _listed(indices: np.ndarray) -> str:
    shown = ", ".join(str(i) for i in indices[:16])
    return f"[{shown}]" if len(indices) <= 16 else f"[{shown}, ... {len(indices)} in all]"
