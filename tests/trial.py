"""A run to test: a Learner with its data and folder, and something that may happen at a step of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from wgpu_nn import Config, Module
from wgpu_nn.data import DataLoader
from wgpu_nn.optim import Optimizer
from wgpu_nn.train import EpochRecord, Learner, Result, Session, read_log
from wgpu_nn.train.feed import Given
from wgpu_nn.train.window import Steps


@dataclass
class Trial:
    """``fit`` runs it; ``hooks`` are called before and after each step with the session and the step's number."""

    learner: Learner
    train: DataLoader
    valid: DataLoader | None
    run: Path
    config: Config
    before: Callable[[Session, int], object] = lambda session, number: None
    after: Callable[[Session, int], object] = lambda session, number: None
    sessions: list[Session] = field(default_factory=list[Session])

    @property
    def model(self) -> Module:
        """The learner's model."""
        return self.learner.model

    @property
    def optimizer(self) -> Optimizer:
        """The learner's optimizer."""
        return self.learner.optimizer

    @property
    def session(self) -> Session:
        """The last call of fit."""
        return self.sessions[-1]

    def fit(self, epochs: int, **more: Any) -> Result:
        """Fit the learner, with what shall happen at steps."""
        take, count = Session.take, 0

        def hooked(session: Session, given: Given, items: int, last: bool) -> Steps:
            nonlocal count
            count += 1
            if count == 1:
                self.sessions.append(session)
            self.before(session, count)
            steps = take(session, given, items, last)
            self.after(session, count)
            return steps

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Session, "take", hooked)
            return self.learner.fit(self.train, self.valid, epochs, run=self.run, config=self.config, **more)

    def at_step(self, number: int, action: Callable[[], object]) -> None:
        """Let ``action`` happen at the end of a step."""
        self.after = lambda session, count: action() if count == number else None

    def weights(self) -> dict[str, bytes]:
        """Return the bits of the model's and the optimizer's tensors."""
        both = {**self.model.state(), **self.optimizer.state()}
        return {name: value.numpy().tobytes() for name, value in both.items()}

    def log(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl."""
        return read_log(self.run / "metrics.jsonl")

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl without what a clock or a GPU's pool decides."""
        return [untimed(line) for line in self.log()]


def untimed(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line or a record without what a clock or a GPU's pool decides."""
    clocked = ("seconds", "items_per_s", "launches_per_step", "gpu_bytes")
    found = {key: value for key, value in line.items() if key not in clocked}
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in found.items()}


def history(result: Result) -> list[dict[str, Any]]:
    """Return the epochs of a run without what a clock or a GPU's pool decides."""

    def fields(record: EpochRecord) -> dict[str, Any]:
        return {name: getattr(record, name) for name in record.__slots__}

    return [untimed(fields(record)) for record in result.history]
