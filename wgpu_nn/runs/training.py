"""From a run's config to its Learner, and to a run in a folder; what is in that folder, saved.py reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from wgpu_nn.data import DataLoader
from wgpu_nn.errors import ConfigError, RecordError
from wgpu_nn.nn import Module
from wgpu_nn.runs.config import RunConfig
from wgpu_nn.runs.facts import Facts
from wgpu_nn.runs.prepare import Prepared, prepare
from wgpu_nn.tensor import Device, Tensor
from wgpu_nn.train import Batch, Callback, EarlyStopping, Learner, Output, Progress, Result, Session, StepFunction
from wgpu_nn.train.folder import CONFIG, FACTS
from wgpu_nn.train.step import Loss, supervised


class _Image(Protocol):
    def forward(self, x: Tensor, /) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Run:
    """A run that is ready to begin: config, data, and what trains on them."""

    config: RunConfig
    data: Prepared
    learner: Learner
    train: DataLoader
    valid: DataLoader | None

    def fit(
        self, folder: Path, *, resume: bool = False, overwrite: bool = False, show: Progress | None = None
    ) -> Result:
        """Train in ``folder``, or go on there; see ``Learner.fit``."""
        c = self.config
        return self.learner.fit(
            self.train,
            self.valid,
            c.epochs,
            run=folder,
            config=c,
            resume=resume,
            overwrite=overwrite,
            keep=c.keep,
            checkpoint_every=c.checkpoint_every,
            samples=c.samples,
            show=show,
        )


@dataclass(frozen=True, slots=True)
class _Keeper(Callback):
    """Writes what a run's folder has beside what the Learner writes: the facts, and the config as it is since a resume."""

    config: RunConfig
    facts: Facts

    def on_begin(self, session: Session) -> None:
        """Write both."""
        if session.folder is not None:
            self.facts.save(session.folder / FACTS)
            self.config.save(session.folder / CONFIG)


def run_of(config: RunConfig, resumed: Path | None = None) -> Run:
    """Return the run of a config, or the one that is ``resumed`` in a folder: reads its data, and makes its model.

    Nothing is written. RecordError for data that are not those that the run was begun with.
    """
    config = config.resolved()
    device = Device(config.device)  # a name that is none is told before data are read
    data = prepare(config.data, config.loss.numbers)
    if resumed is not None and (resumed / FACTS).exists():
        before = Facts.load(resumed / FACTS)
        check_facts(resumed, before, data.facts)
        if before != data.facts:  # by rounding: another machine adds up in another order
            data = prepare(config.data, config.loss.numbers, before)
    train = DataLoader(data.train, config.batch_size, shuffle=True, seed=config.seed, workers=config.workers)
    valid = None
    if data.valid is not None:
        valid = DataLoader(data.valid, config.batch_size, shuffle=False, seed=0, workers=config.workers)
    steps = config.epochs * -(-len(train) // config.accumulate)
    return Run(config, data, learner_of(config, data.facts, device, max(steps, 1)), train, valid)


def learner_of(config: RunConfig, facts: Facts, device: Device, steps: int = 1) -> Learner:
    """Return the Learner of a config whose run makes so many ``steps`` of the optimizer, with a model that is new."""
    if config.model is None:
        raise ConfigError("model: expected a model, got none; take the config that resolved() returns")
    if config.augment and len(facts.inputs) not in (2, 3):
        raise ConfigError(f"augment: expected images, got items of {list(facts.inputs)}; leave it out")
    device.seed(config.seed)
    loss = config.loss.init()
    stopping = config.early_stopping
    callbacks: list[Callback] = [_Keeper(config, facts)]
    if stopping is not None:
        monitor = stopping.monitor or config.monitor
        callbacks.append(EarlyStopping(monitor, patience=stopping.patience, least_change=stopping.least_change))
    augment = [part.init() for part in config.augment]
    return Learner(
        config.model.init(facts, device.autodiff()),
        config.optimizer.init(),
        None if augment else loss,
        config.measured(),
        step=augmented(loss, augment, config.precision == "f16") if augment else None,
        valid_step=supervised(loss) if augment else None,
        schedule=None if config.schedule is None else config.schedule.init(config.optimizer.lr, steps),
        schedule_by="step" if config.schedule is None else config.schedule.by,
        accumulate=config.accumulate,
        clip_value=config.clip_value,
        clip_norm=config.clip_norm,
        precision=config.precision,
        monitor=config.monitor,
        callbacks=callbacks,
    )


def augmented(loss: Loss | Callable[[Tensor, Tensor], Tensor], augment: Sequence[Module], halves: bool) -> StepFunction:
    """Return the supervised step of images that ``augment`` changes first, one after the other; at rest they do not."""
    plain = supervised(loss, halves)

    def step(model: Module, batch: Batch) -> Output:
        images, targets = cast(tuple[Tensor, ...], batch)
        for change in augment:
            images = cast(_Image, change).forward(images)
        return plain(model, (images, targets))

    return step


def check_facts(folder: Path, before: Facts, now: Facts) -> None:
    """Raise RecordError if data that the run in ``folder`` was begun with have other facts ``now``, but for rounding."""
    differ = [
        name
        for name, old, new in ((name, getattr(before, name), getattr(now, name)) for name in Facts.model_fields)
        if not (
            np.allclose(old, new, rtol=1e-6) if name in ("mean", "deviation") and len(old) == len(new) else old == new
        )
    ]
    if differ:
        raise RecordError(
            f"resume: {folder}: expected the data that the run was begun with, got others: {', '.join(differ)} differ; "
            "put them back, or train anew"
        )
