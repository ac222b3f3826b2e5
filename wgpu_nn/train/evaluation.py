"""A model at rest over a data set: what a loop measures after an epoch, and what it predicts; changes no weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from wgpu_nn.metrics import Metric
from wgpu_nn.nn import Module
from wgpu_nn.tensor import Device, Tensor
from wgpu_nn.train.capture import State, capture
from wgpu_nn.train.feed import Feed, Given
from wgpu_nn.train.ledger import Ledger
from wgpu_nn.train.step import Batch, StepFunction, checked
from wgpu_nn.train.totals import Statistics
from wgpu_nn.train.window import Sums

Details = dict[str, "np.ndarray | float"]


class Resting:
    """``model`` without gradients and dropout, on the device below its own or on ``elsewhere``.

    Elsewhere it is a copy, which ``follow`` brings up to date.
    """

    def __init__(self, model: Module, elsewhere: Device | None) -> None:
        self._model = model
        self._copy = None if elsewhere is None else model.valid().to_device(elsewhere)

    @property
    def state(self) -> Module:
        """What a captured step reads."""
        return self._model if self._copy is None else self._copy

    def model(self) -> Module:
        """Return the model to call; inside of a captured step."""
        return self._model.valid() if self._copy is None else self._copy

    def follow(self) -> None:
        """Take the weights as they are now."""
        if self._copy is not None:
            self._copy.load_state(self._model.valid().state())


class Evaluation:
    """Measures loss, values and metrics over all batches of a feed."""

    def __init__(
        self,
        resting: Resting,
        step: StepFunction,
        metrics: Sequence[Metric],
        feed: Feed,
        where: Device,
        captured: int,
    ) -> None:
        self._resting, self._feed = resting, feed
        self._ledger = ledger = Ledger(metrics, where)

        def whole(given: Given) -> Statistics:
            return ledger.put(checked(step(resting.model(), feed.batch(given))))

        self._step: Callable[[Given], Statistics] = together(whole, [resting.state, ledger], captured)

    def run(self, each: Callable[[int], object] = lambda done: None) -> tuple[dict[str, float], Details]:
        """Return the means by name, metrics included, and the metrics' details.

        ``each`` is called with the number of batches done; what it raises ends the evaluation.
        """
        sums = Sums()
        self._resting.follow()
        self._ledger.clear()
        with closing(self._feed.epoch(0)) as batches:
            for done, (given, items) in enumerate(batches, start=1):
                sums.add(self._ledger.note(self._step(given), items))
                each(done)
        sums.add(self._ledger.read())
        metrics, details = self._ledger.totals.measure()
        return sums.means() | metrics, details


class Prediction:
    """What ``forward`` makes of the batches of any feed, as arrays."""

    def __init__(self, resting: Resting, forward: Callable[[Module, Batch], Any], captured: int) -> None:
        self._resting = resting

        def whole(batch: Batch) -> Any:
            return forward(resting.model(), batch)

        self._step: Callable[[Given], Any] = together(whole, [resting.state], captured)

    def run(self, feed: Feed) -> Any:
        """Return the outputs of all batches one after another, in the form that ``forward`` returns them in."""
        self._resting.follow()
        found: list[Any] = []
        coming: list[Any] = []
        with closing(feed.epoch(0)) as batches:
            for given, _ in batches:
                coming.append(_later(self._step(given)))
                if len(coming) > READ_BEHIND:  # so many batches are under way at once
                    found.append(_arrays(coming.pop(0)))
        found += [_arrays(c) for c in coming]
        return _joined(found)


READ_BEHIND = 4


def together(fn: Callable[[Given], Any], state: Sequence[State], captured: int) -> Callable[[Given], Any]:
    """Return ``fn`` captured, ``captured`` calls to a submit; 0 leaves it as it is."""
    return capture(state=state, calls_per_submit=captured)(fn) if captured else fn


def _later(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.numpy_later()
    if isinstance(value, dict):
        return {key: _later(v) for key, v in value.items()}
    return tuple(_later(v) for v in value)


def _arrays(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _arrays(v) for key, v in value.items()}
    return tuple(_arrays(v) for v in value) if isinstance(value, tuple) else value.result()


def _joined(found: list[Any]) -> Any:
    first = found[0]
    if isinstance(first, dict):
        return {key: _joined([f[key] for f in found]) for key in first}
    if isinstance(first, tuple):
        return tuple(_joined([f[i] for f in found]) for i in range(len(first)))
    return np.concatenate(found)
