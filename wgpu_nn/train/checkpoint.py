"""What a run must know to go on exactly where it stopped, as a checkpoint and back; when to save, the loop decides."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from wgpu_nn.data import DataLoader
from wgpu_nn.errors import KindError, RecordError, TrainingError
from wgpu_nn.nn import Config, Module
from wgpu_nn.optim import Optimizer
from wgpu_nn.record import Checkpoint, load_checkpoint, save_checkpoint
from wgpu_nn.record.module import from_arrays, to_arrays
from wgpu_nn.tensor import Rng
from wgpu_nn.train.metrics import Sums

RUN = "expected a checkpoint of a training run"


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What one epoch came to. ``step`` counts from the start of the run, ``seconds`` has training and evaluation."""

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float
    images_per_s: float


@dataclass(slots=True)
class Position:
    """Where a run is: ``epoch`` epochs are complete, and of the next one ``batch`` batches, which came to ``sums``."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0  # spent on the batches of the open epoch
    sums: Sums = field(default_factory=Sums)
    history: list[EpochRecord] = field(default_factory=list)

    @property
    def best(self) -> EpochRecord | None:
        """The epoch of highest test accuracy, the first of equals."""
        return max(self.history, key=lambda record: record.test_accuracy, default=None)


@dataclass(frozen=True, slots=True)
class Parts:
    """All that changes in a training run, and what tells it from other runs."""

    model: Module
    optimizer: Optimizer
    rng: Rng
    config: Config
    data: DataLoader

    def identity(self) -> dict[str, Any]:
        """Return what must be equal for a checkpoint to continue this run."""
        data = self.data
        return {
            "model": type(self.model).__name__,
            "optimizer": type(self.optimizer).__name__,
            "config": json.loads(self.config.to_json()),
            "data": {
                "items": len(data.dataset),
                "batch_size": data.batch_size,
                "shuffle": data.shuffle,
                "seed": data.seed,
                "drop_last": data.drop_last,
            },
        }


def save_position(run: Path, parts: Parts, at: Position) -> Path:
    """Write a checkpoint of the run, and return its directory.

    Raises TrainingError, and leaves the older checkpoints alone, if a weight is not finite; RecordError when the disk
    refuses.
    """
    tensors = {"model": to_arrays(parts.model.state()), "optimizer": to_arrays(parts.optimizer.state())}
    for group, arrays in tensors.items():
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise TrainingError(
                    f"checkpoint: expected finite numbers in {group} {name} after step {at.step}, got NaN or infinity; "
                    "the last good checkpoint is kept; resume from it with a lower learning rate"
                )
    state = {
        **parts.identity(),
        "position": asdict(at),
        "optimizer_steps": parts.optimizer.steps,
        "rng": {"seed": parts.rng.seed, "stream": parts.rng.stream},
    }
    return save_checkpoint(run, at.step, tensors, state)


def load_position(path: Path, parts: Parts) -> Position:
    """Bring model, optimizer and random sequence to where the checkpoint at ``path`` was taken.

    Raises RecordError, and changes nothing, if it is damaged, foreign, or of another run: the message names what
    differs.
    """
    where = f"resume: {path}"
    saved = load_checkpoint(path)
    check_identity(where, saved.state, parts.identity())
    try:
        at = _position(saved)
        steps, rng = _number(saved.state["optimizer_steps"]), saved.state["rng"]
        seed, stream = _number(rng["seed"], signed=True), _number(rng["stream"])
        model, optimizer = from_arrays(saved.tensors["model"]), from_arrays(saved.tensors["optimizer"])
    except KeyError as error:
        raise RecordError(f"{where}: {RUN}, got one without {error}; was it written by another program?") from error
    except (TypeError, ValueError, OverflowError, KindError) as error:
        raise RecordError(f"{where}: {RUN}, got {error}; was it written by another program?") from error
    before = parts.model.state()
    parts.model.load_state(model)
    try:
        parts.optimizer.load_state(parts.model, optimizer, steps)
    except BaseException:
        parts.model.load_state(before)
        raise
    parts.rng.seed, parts.rng.stream = seed, stream
    return at


def _position(saved: Checkpoint) -> Position:
    fields = dict(saved.state["position"])
    sums, history = fields.pop("sums"), fields.pop("history")
    records = [EpochRecord(**_numbers(EpochRecord, record)) for record in history]
    return Position(**_numbers(Position, fields), sums=Sums(**_numbers(Sums, sums)), history=records)


def _number(value: object, signed: bool = False) -> int:
    if type(value) is not int or (value < 0 and not signed):
        raise ValueError(f"{value!r} where a count is expected")
    return value


def _numbers(cls: type, saved: Mapping[str, object]) -> dict[str, Any]:
    """Return what ``saved`` has for the numbers of a dataclass, each of its field's type."""
    out: dict[str, Any] = {}
    fields = [f for f in dataclasses.fields(cls) if f.type in ("int", "float")]
    if unknown := saved.keys() - {f.name for f in fields}:
        raise ValueError(f"unknown fields {sorted(unknown)}")
    for f in fields:
        value = saved[f.name]
        if f.type == "int":
            out[f.name] = _number(value)
        elif type(value) in (int, float):
            out[f.name] = float(cast(float, value))
        else:
            raise ValueError(f"{value!r} for {f.name}, where a number is expected")
    return out


def check_identity(where: str, saved: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """Raise RecordError, naming every difference, unless ``saved`` has all that ``mine`` has."""
    differences = list(_differences("", dict(mine), {key: saved.get(key) for key in mine}))
    if differences:
        raise RecordError(
            f"{where}: is of another run: {'; '.join(differences)}; train with what it was started with, "
            "or choose another folder"
        )


def _differences(path: str, mine: object, saved: object) -> list[str]:
    if isinstance(mine, dict) and isinstance(saved, dict):
        ours, theirs = cast(dict[str, object], mine), cast(dict[str, object], saved)
        return [
            line
            for key in sorted(ours.keys() | theirs.keys())
            for line in _differences(f"{path}.{key}" if path else key, ours.get(key), theirs.get(key))
        ]
    return [] if mine == saved else [f"{path} is {saved!r} there and {mine!r} here"]
