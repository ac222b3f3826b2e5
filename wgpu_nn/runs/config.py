"""RunConfig: all that makes up a run, read from JSON; what is done with it, learner.py knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from wgpu_nn.errors import ConfigError
from wgpu_nn.metrics import Metric
from wgpu_nn.nn import Config
from wgpu_nn.runs.kinds import all_spelled, part
from wgpu_nn.runs.measures import AnyMetric
from wgpu_nn.runs.parts import (
    AdamPart,
    AnySchedule,
    AugmentPart,
    CnnPart,
    CrossEntropyPart,
    LossPart,
    MlpPart,
    ModelPart,
    OptimizerPart,
    OwnPart,
    StoppingPart,
)
from wgpu_nn.runs.sources import AnyData

# What may differ where a run goes on: how long, where, and how it is written down; the items' number is compared anyway.
FREE = ("epochs", "device", "keep", "checkpoint_every", "samples", "data.path", "data.valid_path", "data.targets_path")


class RunConfig(Config):
    """A training run: its data, its model, and how it is trained."""

    data: AnyData = part(AnyData, "what to train on")
    model: ModelPart | None = part(ModelPart, "what to train; null is a cnn for images, an mlp for others", None)
    loss: LossPart = part(LossPart, "what training makes small", CrossEntropyPart())
    optimizer: OptimizerPart = part(OptimizerPart, "what changes the weights", AdamPart())
    schedule: AnySchedule | None = part(AnySchedule, "of the learning rate; null keeps the optimizer's", None)
    metrics: tuple[AnyMetric, ...] | None = part(
        AnyMetric, "what is measured; null is accuracy and confusion, or mae and r2 of numbers", None
    )
    monitor: str = Field(default="loss", description="loss or a metric: says which epoch is best")
    epochs: int = Field(default=10, ge=0, description="passes over the training data")
    batch_size: int = Field(default=64, gt=0, description="items of a step")
    seed: int = Field(default=1, ge=0, description="of weights, dropout, augmentation and order")
    device: str = Field(default="wgpu", description="wgpu (best adapter), wgpu:<index or name>, numpy")
    precision: Literal["f32", "f16"] = Field(
        default="f32", description="of training steps; f16 needs an adapter with it"
    )
    augment: tuple[AugmentPart, ...] = part(AugmentPart, "random changes of training images", ())
    accumulate: int = Field(default=1, gt=0, description="batches of a step of the optimizer")
    clip_norm: float | None = Field(default=None, gt=0.0, description="limit of the norm of all gradients")
    clip_value: float | None = Field(default=None, gt=0.0, description="limit of each gradient")
    early_stopping: StoppingPart | None = Field(default=None, description="end a run that no longer improves")
    keep: int = Field(default=2, gt=0, description="last checkpoints that are kept, beside the best")
    checkpoint_every: int | None = Field(default=None, gt=0, description="steps between checkpoints within an epoch")
    samples: int = Field(default=64, ge=0, description="wrongly classified items kept for the report")
    workers: int = Field(default=1, ge=0, description="threads that read batches ahead")

    @classmethod
    def of(cls, where: str, values: Mapping[str, Any]) -> Self:
        """Read a config from values that JSON can hold; ConfigError, beginning with ``where``, names the field."""
        return cls._parse(where, json.dumps(values))

    @classmethod
    def _parse(cls, where: str, text: str | bytes) -> Self:
        # NOTE: not by a validator: what one returns is Python's, and strict JSON schemas then refuse its lists.
        with suppress(ValueError, RecursionError):  # of what is no JSON, the base speaks
            values = json.loads(text)
            text = json.dumps(all_spelled(cls, values)) if isinstance(values, dict) else text
        return super()._parse(where, text)

    @classmethod
    def advice(cls) -> str:
        """Say where the fields are: they are too many for an error."""
        return "wgpu-nn train --help lists the fields, --schema describes them"

    def identity(self) -> dict[str, Any]:
        """Return what must be equal where a run goes on: all but ``FREE``."""
        found = super().identity()
        for path in FREE:
            *sections, name = path.split(".")
            inner = found
            for section in sections:
                inner = inner[section]
            inner.pop(name, None)
        return found

    def resolved(self) -> Self:
        """Return the config with model and metrics chosen, and whole paths, so that the run's folder says all."""
        chosen = self.with_data(_whole_paths(self.data))
        if self.metrics is None:
            chosen = chosen.with_metrics(chosen.default_metrics())
        model = self.model or (CnnPart() if self.data.kind in ("mnist", "images") else MlpPart())
        if isinstance(model, OwnPart):
            model = model.with_folder(str(Path(model.folder).resolve()))
        return chosen.with_model(model)

    def default_metrics(self) -> tuple[AnyMetric, ...]:
        """Return the metrics of a run that names none."""
        names = ("mae", "r2") if self.loss.numbers else ("accuracy", "confusion")
        return type(self).of("metrics", {"data": {"kind": "mnist"}, "metrics": list(names)}).metrics or ()

    def measured(self) -> list[Metric]:
        """Return the metrics; ConfigError for parameters that do not go together."""
        return [metric.init() for metric in self.metrics or self.default_metrics()]

    def model_post_init(self, context: object, /) -> None:
        """Raise ConfigError for parts that do not go together."""
        names = [metric.name for metric in self.measured()]
        if len(set(names)) < len(names):
            raise ConfigError(f"field metrics: expected different names, got {names}; give one a name of its own")
        if self.monitor.removeprefix("train.").removeprefix("valid.") not in ("loss", *names):
            raise ConfigError(f"field monitor: expected loss or one of {names}, got {self.monitor!r}")
        if self.loss.numbers and self.data.kind in ("mnist", "images"):
            raise ConfigError(
                f"field loss: expected cross-entropy for {self.data.kind}, whose targets are classes, got mse"
            )


def _whole_paths(data: Any) -> Any:
    for name in ("path", "valid_path", "targets_path"):
        if name in type(data).model_fields and getattr(data, name) is not None:
            data = getattr(data, f"with_{name}")(str(Path(getattr(data, name)).resolve()))
    return data
