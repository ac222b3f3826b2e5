"""What a training step and an evaluation step do with a batch; knows neither epochs nor files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, cast, runtime_checkable

from wgpu_nn.dtype import Float
from wgpu_nn.errors import ConfigError, TrainingError
from wgpu_nn.nn import Module
from wgpu_nn.optim import Optimizer
from wgpu_nn.tensor import Cell, Device, Gradients, Tensor, host_numbers, zeros
from wgpu_nn.train.precision import LossScale, working_copy

Batch: TypeAlias = "tuple[Tensor, ...] | dict[str, Tensor]"
"""What a step gets: the arrays of the data set's items, stacked, on the device; a dict where the items are dicts."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a step makes of a batch.

    ``loss`` [] is the mean over the batch. Metrics compare ``outputs`` with ``targets``. ``values`` are further scalars []
    by name, such as the parts of a loss: they are shown and logged beside it.
    """

    loss: Tensor
    outputs: Tensor | None = None
    targets: Tensor | None = None
    values: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


StepFunction: TypeAlias = "Callable[[Module, Batch], Output]"
"""(model, batch) -> Output. In training on the model's autodiff device; at rest, with dropout off, on the one below."""


@runtime_checkable
class Loss(Protocol):
    """What compares outputs with targets: a mean over the batch."""

    def forward(self, outputs: Tensor, targets: Tensor, /) -> Tensor:
        """Return the loss []."""
        ...


class Model(Protocol):
    """What the supervised step asks of a model beyond being a Module."""

    def forward(self, inputs: Tensor, /) -> Tensor:
        """Return what the model makes of a batch of inputs."""
        ...


def supervised(loss: Loss | Callable[[Tensor, Tensor], Tensor], halves: bool = False) -> StepFunction:
    """Return the step of batches (inputs, targets): ``loss`` of what the model makes of the inputs, and the targets.

    With ``halves`` the model is given inputs in halves; the loss is computed in full precision all the same.
    """
    compare = loss.forward if isinstance(loss, Loss) else loss

    def step(model: Module, batch: Batch) -> Output:
        if isinstance(batch, dict) or len(batch) != 2:
            got = f"a dict of {sorted(batch)}" if isinstance(batch, dict) else f"{len(batch)} arrays"
            raise TrainingError(
                f"step: expected batches of (inputs, targets), got {got}; give the Learner a step=function(model, batch)"
            )
        inputs, targets = batch
        if halves and inputs.kind is Float:
            inputs = inputs.half()
        outputs = cast(Model, model).forward(inputs)
        if halves:
            outputs = outputs.float()
        return Output(compare(outputs, targets), outputs, targets)

    return step


def lowered(out: Output) -> Output:
    """Return an output on the device below, without the history that gradients need."""

    def below(t: Tensor) -> Tensor:
        return t.inner() if t.device.is_autodiff else t

    return Output(
        below(out.loss),
        None if out.outputs is None else below(out.outputs),
        None if out.targets is None else below(out.targets),
        {name: below(t) for name, t in out.values.items()},
    )


def checked(out: object) -> Output:
    """Return ``out`` if it is an Output of a scalar loss; raise TrainingError otherwise."""
    if not isinstance(out, Output):
        raise TrainingError(
            f"step: expected an Output, got {type(out).__name__}; return Output(loss, outputs, targets)"
        )
    if out.loss.size != 1:
        raise TrainingError(
            f"step: expected a loss of one element, got {list(out.loss.shape)}; take its mean over the batch"
        )
    if "loss" in out.values:
        raise TrainingError("step: expected values by other names than loss, got loss; rename it")
    return out


@dataclass(frozen=True, slots=True)
class Clipping:
    """Limits of gradients: of each element to [-value, value], then of the norm of all of them together; None is none."""

    value: float | None = None
    norm: float | None = None

    def __post_init__(self) -> None:
        for name, limit in (("clip_value", self.value), ("clip_norm", self.norm)):
            if limit is not None and not limit > 0:
                raise ConfigError(f"Learner: expected {name} above 0, got {limit}; leave it out for no limit")

    def apply(self, grads: Gradients) -> Gradients:
        """Return the gradients within the limits."""
        if self.value is not None:
            grads = grads.clip_value(self.value)
        return grads if self.norm is None else grads.clip_norm(self.norm)


class Accumulator:
    """The gradients of the batches since the last step of the optimizer, summed in cells by parameter."""

    def __init__(self) -> None:
        self._cells: dict[str, Cell] = {}
        self.batches = 0  # of which there are gradients here

    def cells(self) -> list[Cell]:
        """Return what a captured step has as state."""
        return list(self._cells.values())

    def add(self, model: Module, grads: Gradients) -> None:
        """Add the gradients of a batch."""
        for name, value, g in _pairs(model, grads):
            cell = self._cells.get(name)
            if cell is None:
                with g.device.untraced():  # a captured step must find it as state
                    cell = self._cells[name] = Cell(zeros(value.shape, g.device, dtype=g.device.backend.dtypes[Float]))
            cell.value = cell.value + g

    def take(self, model: Module, grads: Gradients, device: Device) -> Gradients:
        """Return the mean of the gradients here and those of one batch more, and start again from zero."""
        (share,) = host_numbers(device, lambda: [1.0 / (self.batches + 1)])
        mean: list[tuple[Tensor, Tensor]] = []
        for name, value, g in _pairs(model, grads):
            cell = self._cells.get(name)
            if cell is not None:
                g = (g + cell.value) * share
                cell.value = zeros(value.shape, g.device, dtype=g.device.backend.dtypes[Float])
            mean.append((value, g))
        return Gradients.of(mean)


def _pairs(model: Module, grads: Gradients) -> list[tuple[str, Tensor, Tensor]]:
    found = [(name, p.value, grads.get(p.value)) for name, p in model.named_params() if p.trainable]
    return [(name, value, g) for name, value, g in found if g is not None]


def device_of(model: Module) -> Device:
    """Return where a model's parameters are; raise if it has none."""
    device = model.device
    if device is None:
        raise TrainingError(f"train: expected a model with parameters, got {type(model).__name__} without any")
    return device


@dataclass(frozen=True, slots=True)
class Clipped:
    """An optimizer that is given gradients within limits."""

    optimizer: Optimizer
    clipping: Clipping

    def step(self, model: Module, grads: Gradients, /) -> None:
        """Move the model."""
        self.optimizer.step(model, self.clipping.apply(grads))

    def prepare(self, model: Module, grads: Gradients) -> None:
        """Have the optimizer make the state that it does not have yet."""
        self.optimizer.prepare(model, grads)

    def cells(self) -> list[Cell]:
        """Return the optimizer's cells."""
        return self.optimizer.cells()


@dataclass(frozen=True, slots=True)
class Training:
    """All that a training step works with; with a ``scale`` the step gets a working copy of the model in halves."""

    model: Module
    optimizer: Optimizer
    step: StepFunction
    clipping: Clipping
    scale: LossScale | None = None

    def update(self, batch: Batch, gathered: Accumulator | None = None) -> Output:
        """Forward, backward, and a step of the optimizer; by the mean with what is ``gathered``, if anything is.

        The output lives on the device below the model's. Nothing waits for the device, and all that changes is the
        model, the optimizer, what is gathered, the scale, and the device's random sequence.
        """
        out, grads = self._pass(batch)
        if gathered is not None:
            grads = gathered.take(self.model, grads, device_of(self.model).inner())
        stepping = Clipped(self.optimizer, self.clipping)
        if self.scale is None:
            stepping.step(self.model, grads)
        else:
            self.scale.step(stepping, self.model, grads)
        return lowered(out)

    def gather(self, batch: Batch, gathered: Accumulator) -> Output:
        """Forward and backward, and the gradients go to those ``gathered``; the model stays as it is."""
        out, grads = self._pass(batch)
        gathered.add(self.model, grads)
        return lowered(out)

    def _pass(self, batch: Batch) -> tuple[Output, Gradients]:
        """Return the output, and the gradients of its loss, which is scaled if there is a scale."""
        if self.scale is None:
            out = checked(self.step(self.model, batch))
            return out, out.loss.backward()
        out = checked(self.step(working_copy(self.model), batch))
        return out, self.scale.scaled(out.loss).backward().map(lambda g: g.float())
