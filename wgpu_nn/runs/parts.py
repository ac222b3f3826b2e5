"""The parts of a run's config beside its data and metrics: model, loss, optimizer, schedule, augmentations, stopping."""

from __future__ import annotations

import abc
import importlib
import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeAlias, cast

from pydantic import Field

from wgpu_nn.errors import ConfigError
from wgpu_nn.models import MlpConfig, ModelConfig
from wgpu_nn.nn import (
    Config,
    CrossEntropyLoss,
    CrossEntropyLossConfig,
    Module,
    MseLossConfig,
    RandomAffineConfig,
    RandomBrightnessConfig,
    RandomCropConfig,
    RandomEraseConfig,
    RandomFlipConfig,
)
from wgpu_nn.optim import (
    AdamConfig,
    AdamWConfig,
    CosineSchedule,
    ExponentialSchedule,
    LinearSchedule,
    NoamSchedule,
    OneCycleSchedule,
    PlateauSchedule,
    Schedule,
    SgdConfig,
    StepSchedule,
)
from wgpu_nn.runs.facts import Facts
from wgpu_nn.runs.kinds import OWN, Kind
from wgpu_nn.tensor import Device, Tensor


# --- models: sizes that the data decide are left to them ------------------------------------------------------------
class CnnPart(Kind):
    """The small convolutional network, for grey images of any size and for classes."""

    kind: Literal["cnn"] = "cnn"
    hidden_size: int = Field(default=512, gt=0, description="size of the hidden linear layer")
    dropout: float = Field(default=0.5, ge=0.0, le=1.0, description="share of values that training drops")

    def init(self, facts: Facts, device: Device) -> Module:
        """Return the model for data of these ``facts``."""
        if len(facts.inputs) != 2:
            raise ConfigError(
                f"model: expected grey images for a cnn, got items of {list(facts.inputs)}; "
                "set data.channels to 1, take an mlp, or a model of your own (model.name)"
            )
        return ModelConfig(facts.outputs, self.hidden_size, dropout=self.dropout).init(device)

    def least(self, facts: Facts) -> int:
        """Return how many numbers such a model has at least; 0 if only making it tells."""
        return self.hidden_size * facts.outputs


class MlpPart(Kind):
    """A multilayer perceptron, for tables; of other items it sees the numbers alone."""

    kind: Literal["mlp"] = "mlp"
    hidden: tuple[int, ...] = Field(default=(64, 64), description="sizes of the hidden layers")
    dropout: float = Field(default=0.0, ge=0.0, le=1.0, description="share of values that training drops")

    def init(self, facts: Facts, device: Device) -> Module:
        """Return the model for data of these ``facts``."""
        return MlpConfig(facts.size, facts.outputs, hidden=self.hidden, dropout=self.dropout).init(device)

    def least(self, facts: Facts) -> int:
        """Return how many numbers such a model has at least; 0 if only making it tells."""
        return sum(a * b for a, b in itertools.pairwise((facts.size, *self.hidden, facts.outputs)))


class _Builder(Protocol):
    def init(self, device: Device, /) -> Module: ...


class OwnPart(Kind):
    """A model of your own, by its Config: a class with ``init(device)`` that returns the Module."""

    kind: Literal["own"] = OWN
    name: str = Field(pattern=r"^[\w.]+:\w+$", kw_only=True, description="module:Name of your Config")
    fields: dict[str, Any] = Field(default={}, description="fields of your Config, as JSON")
    folder: str = Field(default=".", description="where the module is; a run keeps the whole path")

    def init(self, facts: Facts, device: Device) -> Module:
        """Return the model."""
        module, _, name = self.name.partition(":")
        folder = str(Path(self.folder).resolve())
        if folder not in sys.path:
            sys.path.insert(0, folder)
        try:
            found = vars(importlib.import_module(module)).get(name)
        except ImportError as error:
            raise ConfigError(f"model.name: expected a module in {folder}, got {self.name}: {error}") from error
        if not (isinstance(found, type) and issubclass(found, Config)):
            raise ConfigError(f"model.name: expected a class derived from Config in {module}, got {name}: {found!r}")
        built = found.model_validate_json(json.dumps(self.fields))
        model = cast(_Builder, built).init(device)
        if not isinstance(model, Module):
            raise ConfigError(f"model.name: expected {name}.init to return a Module, got {type(model).__name__}")
        return model

    def least(self, facts: Facts) -> int:
        """Return how many numbers such a model has at least; 0 if only making it tells."""
        return 0


ModelPart: TypeAlias = Annotated[CnnPart | MlpPart | OwnPart, Field(discriminator="kind")]


# --- losses ---------------------------------------------------------------------------------------------------------
class CrossEntropyPart(Kind):
    """Cross-entropy of class scores: for classification."""

    kind: Literal["cross-entropy"] = "cross-entropy"
    smoothing: float = Field(default=0.0, ge=0.0, lt=1.0, description="share of the target given to all classes")

    @property
    def numbers(self) -> bool:
        """Whether targets are numbers, not classes."""
        return False

    def init(self) -> CrossEntropyLoss:
        """Return the loss."""
        return CrossEntropyLossConfig(smoothing=self.smoothing).init()


class MsePart(Kind):
    """Mean squared error of numbers: for regression."""

    kind: Literal["mse"] = "mse"

    @property
    def numbers(self) -> bool:
        """Whether targets are numbers, not classes."""
        return True

    def init(self) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the loss; outputs [n, 1] meet targets [n]."""
        loss = MseLossConfig().init()
        return lambda outputs, targets: loss.forward(outputs.reshape(targets.shape), targets)


LossPart: TypeAlias = Annotated[CrossEntropyPart | MsePart, Field(discriminator="kind")]


# --- optimizers -----------------------------------------------------------------------------------------------------
class AdamPart(AdamConfig, Kind):
    """Adam."""

    kind: Literal["adam"] = "adam"


class AdamWPart(AdamWConfig, Kind):
    """Adam with decoupled weight decay."""

    kind: Literal["adamw"] = "adamw"


class SgdPart(SgdConfig, Kind):
    """Stochastic gradient descent, with momentum if that is set."""

    kind: Literal["sgd"] = "sgd"


OptimizerPart: TypeAlias = Annotated[AdamPart | AdamWPart | SgdPart, Field(discriminator="kind")]


# --- schedules: they start from the optimizer's rate, and those by steps go over the whole run ----------------------
class SchedulePart(Kind):
    """A schedule of the learning rate; ``by`` says what it counts."""

    @property
    def by(self) -> Literal["step", "epoch"]:
        """What it counts."""
        return "step"

    @abc.abstractmethod
    def init(self, lr: float, steps: int) -> Schedule | PlateauSchedule:
        """Return the schedule from a rate of ``lr``, for a run of so many steps of the optimizer."""


class CosinePart(SchedulePart):
    """Half a cosine down to ``least`` over the run, after a linear ascent."""

    kind: Literal["cosine"] = "cosine"
    warmup: int = Field(default=0, ge=0, description="steps of the ascent")
    least: float = Field(default=0.0, ge=0.0, description="rate at the end")

    def init(self, lr: float, steps: int) -> Schedule:
        if self.warmup >= steps:
            raise ConfigError(f"schedule.warmup: expected less than the {steps} steps of the run, got {self.warmup}")
        return CosineSchedule(lr, steps, warmup=self.warmup, least=self.least)


class LinearPart(SchedulePart):
    """A straight line to ``least`` over the run."""

    kind: Literal["linear"] = "linear"
    least: float = Field(default=0.0, ge=0.0, description="rate at the end")

    def init(self, lr: float, steps: int) -> Schedule:
        return LinearSchedule(lr, self.least, steps)


class OneCyclePart(SchedulePart):
    """Up to the rate and down again over the run, each by half a cosine."""

    kind: Literal["one-cycle"] = "one-cycle"
    rise: float = Field(default=0.3, gt=0.0, lt=1.0, description="share of the run that goes up")

    def init(self, lr: float, steps: int) -> Schedule:
        return OneCycleSchedule(lr, max(steps, 2), rise=self.rise)


class NoamPart(SchedulePart):
    """Up for ``warmup`` steps, then down with the root of the step; the rate is a factor."""

    kind: Literal["noam"] = "noam"
    size: int = Field(default=512, gt=0, description="width of the model")
    warmup: int = Field(default=4000, gt=0, description="steps of the ascent")

    def init(self, lr: float, steps: int) -> Schedule:
        return NoamSchedule(self.size, warmup=self.warmup, factor=lr)


class StepPart(SchedulePart):
    """Times ``factor`` every so many epochs."""

    kind: Literal["step"] = "step"
    every: int = Field(default=10, gt=0, description="epochs between reductions")
    factor: float = Field(default=0.1, gt=0.0, description="of each reduction")

    @property
    def by(self) -> Literal["step", "epoch"]:
        return "epoch"

    def init(self, lr: float, steps: int) -> Schedule:
        return StepSchedule(lr, self.every, factor=self.factor)


class ExponentialPart(SchedulePart):
    """Times ``factor`` every epoch."""

    kind: Literal["exponential"] = "exponential"
    factor: float = Field(default=0.9, gt=0.0, description="of each reduction")

    @property
    def by(self) -> Literal["step", "epoch"]:
        return "epoch"

    def init(self, lr: float, steps: int) -> Schedule:
        return ExponentialSchedule(lr, self.factor)


class PlateauPart(SchedulePart):
    """Times ``factor`` when ``monitor`` has not improved for more than ``patience`` epochs."""

    kind: Literal["plateau"] = "plateau"
    factor: float = Field(default=0.1, gt=0.0, lt=1.0, description="of each reduction")
    patience: int = Field(default=3, ge=0, description="epochs without an improvement that are borne")
    monitor: str = Field(default="loss", description="loss or a metric")
    better: Literal["higher", "lower"] = Field(default="lower", description="which values of monitor are better")
    least: float = Field(default=0.0, ge=0.0, description="rate that it does not go below")

    @property
    def by(self) -> Literal["step", "epoch"]:
        return "epoch"

    def init(self, lr: float, steps: int) -> PlateauSchedule:
        return PlateauSchedule(
            lr,
            factor=self.factor,
            patience=self.patience,
            monitor=self.monitor,
            better=self.better,
            least=self.least,
        )


AnySchedule: TypeAlias = Annotated[
    CosinePart | LinearPart | OneCyclePart | NoamPart | StepPart | ExponentialPart | PlateauPart,
    Field(discriminator="kind"),
]


# --- augmentations of images ----------------------------------------------------------------------------------------
class FlipPart(RandomFlipConfig, Kind):
    """Turns images over."""

    kind: Literal["flip"] = "flip"


class CropPart(RandomCropConfig, Kind):
    """Shifts images."""

    kind: Literal["crop"] = "crop"


class ErasePart(RandomEraseConfig, Kind):
    """Erases a rectangle of images."""

    kind: Literal["erase"] = "erase"


class BrightnessPart(RandomBrightnessConfig, Kind):
    """Changes brightness and contrast."""

    kind: Literal["brightness"] = "brightness"


class AffinePart(RandomAffineConfig, Kind):
    """Turns, moves and scales images."""

    kind: Literal["affine"] = "affine"


AugmentPart: TypeAlias = Annotated[
    FlipPart | CropPart | ErasePart | BrightnessPart | AffinePart, Field(discriminator="kind")
]


class StoppingPart(Config):
    """Early stopping."""

    monitor: str | None = Field(default=None, description="loss or a metric; null is the run's own monitor")
    patience: int = Field(default=5, gt=0, description="epochs without an improvement after which the run ends")
    least_change: float = Field(default=0.0, ge=0.0, description="what counts as an improvement")
