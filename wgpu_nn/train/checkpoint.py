"""What a run must know to go on exactly where it stopped, as a checkpoint and back; when to save, the loop decides."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from pydantic import ConfigDict, NonNegativeFloat, NonNegativeInt, TypeAdapter, ValidationError

from wgpu_nn.backends.base import Pending
from wgpu_nn.data import StreamLoader
from wgpu_nn.errors import KindError, RecordError, TrainingError
from wgpu_nn.nn import Config, Module
from wgpu_nn.optim import Optimizer
from wgpu_nn.record import Checkpoint, load_checkpoint
from wgpu_nn.record.module import from_arrays
from wgpu_nn.tensor import Rng, read_later, tensor
from wgpu_nn.train.feed import Loader
from wgpu_nn.train.history import EpochRecord
from wgpu_nn.train.precision import LossScale
from wgpu_nn.train.totals import Totals
from wgpu_nn.train.window import Sums

RUN = "expected a checkpoint of a training run"


@dataclass(slots=True)
class Position:
    """Where a run is: ``epoch`` epochs are complete, and of the next one ``batch`` batches, which came to ``sums``.

    ``step`` counts batches from the start of the run.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    epoch: NonNegativeInt = 0
    batch: NonNegativeInt = 0
    step: NonNegativeInt = 0
    seconds: NonNegativeFloat = 0.0  # spent on the batches of the open epoch
    sums: Sums = field(default_factory=Sums)
    history: list[EpochRecord] = field(default_factory=list[EpochRecord])


@dataclass(frozen=True, slots=True)
class Parts:
    """All that changes in a training run, and what tells it from other runs."""

    model: Module
    optimizer: Optimizer
    rng: Rng
    totals: Totals
    data: Loader
    config: Config | None
    accumulate: int
    scale: LossScale | None = None

    def identity(self) -> dict[str, Any]:
        """Return what must be equal for a checkpoint to continue this run."""
        return {
            "model": type(self.model).__name__,
            "optimizer": type(self.optimizer).__name__,
            "config": None if self.config is None else self.config.identity(),
            "accumulate": self.accumulate,
            "precision": "f32" if self.scale is None else "f16",
            "data": _order_of(self.data),
        }


@dataclass(frozen=True, slots=True)
class Taken:
    """A checkpoint that is on its way from the device: groups of tensors that come, and the state beside them."""

    step: int
    tensors: dict[str, dict[str, Pending]]
    state: dict[str, Any]

    def ready(self) -> bool:
        """Say whether all tensors have come; waits for nothing."""
        return all(p.ready() for group in self.tensors.values() for p in group.values())

    def arrays(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the tensors as arrays; waits until they have come."""
        return {group: {name: p.result() for name, p in found.items()} for group, found in self.tensors.items()}


def take_position(parts: Parts, at: Position) -> Taken:
    """Begin to read a checkpoint of the run as it is now; the device may go on with the next steps at once."""
    tensors = {"model": read_later(parts.model.state()), "optimizer": read_later(parts.optimizer.state())}
    if at.batch:
        tensors["metrics"] = parts.totals.later()
    if parts.scale is not None:
        tensors["precision"] = read_later({str(i): cell.value for i, cell in enumerate(parts.scale.cells())})
    state = {
        **parts.identity(),
        "position": asdict(at),
        "optimizer_steps": parts.optimizer.steps,
        "rng": {"seed": parts.rng.seed, "stream": parts.rng.stream},
    }
    return Taken(at.step, {group: found for group, found in tensors.items() if found}, state)


def check_finite(step: int, tensors: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Raise TrainingError if a weight or a moment is not finite: such a checkpoint would replace a good one."""
    for group in ("model", "optimizer"):
        for name, array in tensors.get(group, {}).items():
            if not np.isfinite(array).all():
                raise TrainingError(
                    f"checkpoint: expected finite numbers in {group} {name} after step {step}, got NaN or infinity; "
                    "the last good checkpoint is kept; resume from it with a lower learning rate"
                )


def load_position(path: Path, parts: Parts) -> Position:
    """Bring model, optimizer, metrics and random sequence to where the checkpoint at ``path`` was taken.

    Raises RecordError, and changes nothing, if it is damaged, foreign, or of another run: the message names what
    differs.
    """
    where = f"resume: {path}"
    saved = load_checkpoint(path)
    check_identity(where, saved.state, parts.identity())
    try:
        at = _position(saved)
        steps, rng = _count(saved.state["optimizer_steps"]), saved.state["rng"]
        seed, stream = int(rng["seed"]), _count(rng["stream"])
        model, optimizer = from_arrays(saved.tensors["model"]), from_arrays(saved.tensors.get("optimizer", {}))
    except KeyError as error:
        raise RecordError(f"{where}: {RUN}, got one without {error}; was it written by another program?") from error
    except (TypeError, ValueError, OverflowError, KindError) as error:
        raise RecordError(f"{where}: {RUN}, got {error}; was it written by another program?") from error
    before = parts.model.state()
    parts.model.load_state(model)
    try:
        parts.totals.load(saved.tensors.get("metrics", {}), at.batch == 0)
        parts.optimizer.load_state(parts.model, optimizer, steps)
    except BaseException:
        parts.model.load_state(before)
        raise
    if parts.scale is not None:
        for i, cell in enumerate(parts.scale.cells()):
            cell.value = tensor(saved.tensors["precision"][str(i)], cell.device)
    parts.rng.seed, parts.rng.stream = seed, stream
    return at


def _order_of(data: Loader) -> dict[str, Any]:
    """Return what decides which items are in which batch."""
    if isinstance(data, StreamLoader):
        return {"batch_size": data.batch_size}
    return {
        "items": len(data.dataset),
        "batch_size": data.batch_size,
        "shuffle": data.shuffle,
        "seed": data.seed,
        "drop_last": data.drop_last,
    }


@functools.cache
def _positions() -> TypeAdapter[Position]:
    return TypeAdapter(Position)


def _position(saved: Checkpoint) -> Position:
    """Return the position in a checkpoint; ValueError names the field that a damaged one has wrong."""
    try:
        return _positions().validate_json(json.dumps(saved.state["position"]), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"position {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} where a count is expected")
    return value


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
