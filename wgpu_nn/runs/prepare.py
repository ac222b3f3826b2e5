"""From a run's data config to items that its model takes, and to the facts that are saved; knows neither model nor loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wgpu_nn.data import Dataset, labels_of, mapped, subset
from wgpu_nn.errors import DataError
from wgpu_nn.runs.facts import Facts, statistics
from wgpu_nn.runs.sources import DataPart, Names, check_targets


@dataclass(frozen=True, slots=True)
class Prepared:
    """Items (input float32, target), standardised as ``facts`` say."""

    train: Dataset[Any]
    valid: Dataset[Any] | None
    facts: Facts


def prepare(data: DataPart, numbers: bool, facts: Facts | None = None) -> Prepared:
    """Read the data of a run; targets are classes, or ``numbers``. Given ``facts`` are not found out again.

    Raises DataError for what cannot be trained on.
    """
    found = data.read(numbers)
    train, valid = (_limited(part, data.limit) for part in (found.train, found.valid))
    assert train is not None
    labels = [labels_of(part) for part in (train, valid) if part is not None]
    for part, targets in zip((train, valid), labels):
        check_targets(part or train, targets, numbers)
    facts = facts or _facts(data, train, _outputs(labels, numbers, found.names.classes), found.names)
    return Prepared(of_facts(train, facts, numbers), None if valid is None else of_facts(valid, facts, numbers), facts)


def _facts(data: DataPart, train: Dataset[Any], outputs: int, names: Names) -> Facts:
    (first, *_) = train[np.arange(1)]
    if first.dtype.kind not in "fiub":
        raise DataError(f"data: expected numbers as inputs, got {first.dtype}")
    mean, deviation = np.zeros(0), np.zeros(0)
    if data.standardise:
        mean, deviation = statistics(lambda indices: train[indices][0], len(train))
    return Facts(
        first.shape[1:],
        outputs,
        classes=names.classes,
        features=names.features,
        mean=tuple(mean.tolist()),
        deviation=tuple(deviation.tolist()),
    )


def other(data: DataPart, path: str, numbers: bool, facts: Facts) -> Dataset[Any]:
    """Return the items of another path, treated as those that ``facts`` tell of."""
    items = data.other(path, numbers, Names(facts.classes, facts.features))
    check_targets(items, labels_of(items), numbers)
    return of_facts(items, facts, numbers)


def of_facts(items: Dataset[Any], facts: Facts, numbers: bool) -> Dataset[Any]:
    """Return items as the model takes them; DataError where inputs have another shape than in training."""
    (first, *_) = items[np.arange(1)]
    check_inputs("data", first, facts)

    def made(batch: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        inputs, targets = batch
        return facts.prepared(inputs), targets.astype(np.float32 if numbers else np.int32)

    return mapped(items, made)


def check_inputs(where: str, inputs: np.ndarray, facts: Facts) -> None:
    """Raise DataError unless ``inputs`` [n, ...] have the shape that the model was trained on."""
    if inputs.shape[1:] != facts.inputs:
        raise DataError(
            f"{where}: expected inputs of {list(facts.inputs)}, as in training, got {list(inputs.shape[1:])}; "
            "are they prepared alike?"
        )


def _limited(part: Dataset[Any] | None, limit: int | None) -> Dataset[Any] | None:
    return part if part is None or limit is None else subset(part, np.arange(min(limit, len(part))))


def _outputs(labels: list[np.ndarray], numbers: bool, classes: tuple[str, ...]) -> int:
    """Return how many classes there are, or how many numbers an item's target has."""
    if numbers:
        return max(1, int(np.prod(labels[0].shape[1:])))
    return max(len(classes), *(int(found.max()) + 1 for found in labels))
