"""Callbacks: what a training run tells to others while it goes on, and early stopping, which is one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from wgpu_nn.train.history import EpochRecord, monitor_of

if TYPE_CHECKING:
    from wgpu_nn.train.session import Result, Session


class Callback(Protocol):
    """Called by ``fit``. Derive from it and write what you need; what is not written does nothing.

    ``session`` has model, optimizer, history, folder and where the run is; ``session.stop(reason)`` ends it after the
    present step. What a callback raises ends the run, whose last checkpoint stays.
    """

    def on_begin(self, session: Session) -> None:
        """Before the first step, after a resume too: ``session.history`` has the epochs before."""

    def on_step(self, session: Session, lines: Sequence[dict[str, Any]]) -> None:
        """Now and then, when the numbers of steps were read: a line of the log for each, in order."""

    def on_epoch(self, session: Session, record: EpochRecord) -> None:
        """After an epoch and its evaluation."""

    def on_end(self, session: Session, result: Result | None) -> None:
        """At the end; ``result`` is None if the run failed."""


@dataclass(frozen=True, slots=True)
class EarlyStopping(Callback):
    """Stops a run whose ``monitor`` has not improved by more than ``least_change`` for ``patience`` epochs in a row.

    It goes by the history, so that a resumed run stops where it would have stopped. The best epoch's weights are in its
    checkpoint.
    """

    monitor: str = "loss"
    patience: int = 5
    least_change: float = 0.0

    def on_begin(self, session: Session) -> None:
        """Stop a resumed run that has stopped before; raise ConfigError for what no metric is called."""
        monitor_of(self.monitor, session.settings.metrics)
        self._look(session)

    def on_epoch(self, session: Session, record: EpochRecord) -> None:
        """Stop when the best epoch is too long ago."""
        self._look(session)

    def _look(self, session: Session) -> None:
        watched = monitor_of(self.monitor, session.settings.metrics)
        best, since = math.nan, 0
        for record in session.history:
            value = record.value(self.monitor)
            if watched.improves(value, best, self.least_change):
                best, since = value, 0
            else:
                since += 1
        if since >= self.patience:
            session.stop(f"{self.monitor} has not improved for {since} epochs")
