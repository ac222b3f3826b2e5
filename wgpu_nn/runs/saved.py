"""Runs in folders that RunConfigs were trained in: their config, their facts, and their models as they were saved."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from pydantic import TypeAdapter, ValidationError

from wgpu_nn.data import DataLoader, Dataset
from wgpu_nn.errors import ConfigError, RecordError
from wgpu_nn.record import checkpoint_at, latest_checkpoint, load_checkpoint, load_module
from wgpu_nn.record.module import from_arrays
from wgpu_nn.runs.config import RunConfig
from wgpu_nn.runs.facts import Facts
from wgpu_nn.runs.inputs import Inputs
from wgpu_nn.runs.prepare import check_inputs, other, prepare
from wgpu_nn.runs.training import learner_of
from wgpu_nn.tensor import Device
from wgpu_nn.train import EpochRecord, Learner, read_log
from wgpu_nn.train.folder import CONFIG, FACTS, METRICS, MODEL
from wgpu_nn.train.history import monitor_of

Which: TypeAlias = "Literal['best', 'last'] | int"
"""Which of a run's models: that of the best epoch, the last one, or that of a checkpoint's step."""


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A run's folder; the run may still go on."""

    folder: Path
    config: RunConfig
    facts: Facts

    @classmethod
    def open(cls, folder: Path, device: str | None = None) -> SavedRun:
        """Read a run's folder; its model will be on ``device`` instead of the run's own. RecordError for other folders."""
        config = saved_config(folder)
        if not (folder / FACTS).is_file():
            raise RecordError(f"{folder}: expected {FACTS}, got none; the run stopped before its first step: resume it")
        return cls(folder, config if device is None else config.with_device(device), Facts.load(folder / FACTS))

    def best(self) -> EpochRecord | None:
        """Return the best epoch so far, by the config's monitor."""
        log = self.folder / METRICS
        lines = read_log(log) if log.exists() else []
        epochs = [line for line in lines if line["kind"] == "epoch"]
        try:
            history = _records().validate_json(json.dumps(epochs), strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            raise RecordError(
                f"{log}: expected the epochs of a run, got another {'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"
            ) from error
        return monitor_of(self.config.monitor, self.config.measured()).best(history)

    def checkpoint(self, which: Which) -> Path:
        """Return a checkpoint's directory, or the file of the last model; RecordError for what is not there."""
        if which == "last":
            model = self.folder / MODEL
            found = latest_checkpoint(self.folder) or (model if model.exists() else None)
        else:
            best = self.best() if which == "best" else None
            step = best.step if best is not None else which if isinstance(which, int) else None
            found = None if step is None else checkpoint_at(self.folder, step)
        if found is None:
            there = sorted(path.name for path in self.folder.glob("checkpoint-*"))
            raise RecordError(
                f"{self.folder}: expected a checkpoint ({which}), got none of it; there are {', '.join(there) or 'none'}"
            )
        return found

    def learner(self, which: Which) -> Learner:
        """Return a Learner with one of the run's models."""
        path = self.checkpoint(which)
        needed = 0 if self.config.model is None else self.config.model.least(self.facts)
        found = sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
        if needed > found:  # sizes that damage made: to make such a model may take minutes, or all memory
            raise RecordError(
                f"{path}: expected a model of {needed:,} numbers or more, got {found:,} bytes; are {CONFIG} and {FACTS} whole?"
            )
        try:
            learner = learner_of(self.config.with_schedule(None), self.facts, Device(self.config.device))
        except MemoryError as error:  # of a model of your own, whose sizes its config alone knows
            raise RecordError(
                f"{self.folder}: expected a model that memory holds, got {error}; is {CONFIG} whole?"
            ) from error
        if path.is_file():
            load_module(learner.model, path)
        else:
            learner.model.load_state(from_arrays(load_checkpoint(path).tensors["model"]))
        return learner

    def items(self, split: Literal["train", "valid"], path: str | None = None) -> Dataset:
        """Return the items of a split of the run's own data, or those of another path, prepared as in training."""
        if path is not None:
            return other(self.config.data, path, self.config.loss.numbers, self.facts)
        data = prepare(self.config.data, self.config.loss.numbers, self.facts)
        found = data.train if split == "train" else data.valid
        if found is None:
            raise ConfigError(
                "eval: expected a run with validation data, got one without; take --split train or --data"
            )
        return found

    def evaluate(self, learner: Learner, items: Dataset) -> dict[str, float]:
        """Return loss and metrics of ``items``, in whole batches of the run's size."""
        return learner.evaluate(DataLoader(items, self.config.batch_size, shuffle=False, seed=0))

    def predict(self, learner: Learner, inputs: Inputs) -> np.ndarray:
        """Return what the model makes of inputs: probabilities [n, classes], or numbers [n, outputs]."""
        check_inputs(f"predict: {inputs.source}", inputs.array, self.facts)
        out = learner.predict(self.facts.prepared(inputs.array)).astype(np.float64)
        if self.config.loss.numbers:
            return out.reshape(len(out), -1)
        raised = np.exp(out - out.max(1, keepdims=True))
        return raised / raised.sum(1, keepdims=True)


@functools.cache
def _records() -> TypeAdapter[list[EpochRecord]]:
    return TypeAdapter(list[EpochRecord])


def saved_config(folder: Path) -> RunConfig:
    """Return the config of the run in ``folder``; RecordError if there is none of ours."""
    if not folder.is_dir():
        raise RecordError(f"{folder}: expected the folder of a run, got none; is the path right?")
    if not (folder / CONFIG).is_file():
        raise RecordError(f"{folder}: expected {CONFIG} of wgpu-nn train, got none; is it the folder of a run?")
    return RunConfig.load(folder / CONFIG)
