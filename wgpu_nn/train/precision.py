"""Training in half precision: a working copy of a module in halves, and a loss scale that lives on the device."""

from __future__ import annotations

from typing import Protocol, TypeVar

from wgpu_nn.dtype import F16, DType, Float
from wgpu_nn.errors import TrainingError
from wgpu_nn.nn import Module, Param
from wgpu_nn.tensor import Cell, Device, Gradients, Tensor, full

M = TypeVar("M", bound=Module)
SMALLEST, LARGEST = 2.0**-14, 2.0**24  # of a scale: beyond, no gradient is helped by it


def working_copy(model: M, dtype: DType = F16) -> M:
    """Return ``model`` with trainable parameters rounded to ``dtype``, through which gradients flow to its own.

    Call it in each step: forward passes in halves move half the bytes, while the optimizer changes the model's own
    parameters, in f32, in which small steps are not lost (Micikevicius et al. 2018)::

        logits = working_copy(model).forward(images.half())
        cost = loss.forward(logits.float(), targets)
        scale.step(optimizer, model, scale.scaled(cost).backward())

    Inputs must be rounded too, as f16 and f32 give f32. Parameters that are not trained, such as running means, are
    shared, so that what a pass does to them lasts.
    """

    def rounded(p: Param) -> Param:
        # Not trained: a trained one would be a leaf of its own, at which gradients end.
        return Param(p.value.cast(dtype), trainable=False) if p.trainable and p.tensor.kind is Float else p

    return model.map_params(rounded)


class Stepping(Protocol):
    """What moves a model by gradients, and names what else it changes: an optimizer, or one behind clipping."""

    def prepare(self, model: Module, grads: Gradients, /) -> None:
        """Make what ``step`` needs and does not have yet."""
        ...

    def step(self, model: Module, grads: Gradients, /) -> None:
        """Move the model."""
        ...

    def cells(self) -> list[Cell]:
        """Return what ``step`` replaces beside the model's parameters."""
        ...


class LossScale:
    """A factor on the loss that lifts small gradients over the 6e-8 at which halves end, and finds itself.

    A step whose gradients overflow changes neither parameters nor the optimizer's state, and halves the factor;
    ``interval`` steps without that double it. All of it happens on the device, without a read: the step can be captured,
    with ``state=[model, optimizer, *scale.cells()]``. The optimizer's count of steps goes on over those that overflow.
    """

    def __init__(
        self,
        device: Device,
        initial: float = 2.0**15,
        growth: float = 2.0,
        backoff: float = 0.5,
        interval: int = 2000,
    ) -> None:
        if not (initial > 0 and growth >= 1 and 0 < backoff <= 1 and interval >= 1):
            raise TrainingError(
                "loss scale: expected initial > 0, growth >= 1, 0 < backoff <= 1 and interval >= 1, got "
                f"{initial}, {growth}, {backoff} and {interval}"
            )
        below = device.inner() if device.is_autodiff else device
        exact = below.backend.dtypes[Float]
        self.growth, self.backoff, self.interval = growth, backoff, interval
        self._scale = Cell(full((), initial, below, dtype=exact))
        self._good = Cell(full((), 0.0, below, dtype=exact))  # steps since the factor last changed

    @property
    def value(self) -> Tensor:
        """The factor: [] Float."""
        return self._scale.value

    def cells(self) -> list[Cell]:
        """Return what changes, for ``capture(state=...)``."""
        return [self._scale, self._good]

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss times the factor, as f32: what to call ``backward`` on."""
        return loss.float() * self._scale.value.to(loss.device)

    def step(self, optimizer: Stepping, model: Module, grads: Gradients) -> Tensor:
        """Step with the gradients of the scaled loss, unless they overflow; return whether they did not: [] Bool."""
        scale = self._scale.value
        grads = grads.map(lambda g: g.float() / scale)
        finite = _finite(grads)
        optimizer.prepare(model, grads)
        cells: list[Cell] = [*(p for p in model.params() if p.trainable), *optimizer.cells()]
        before = [(cell, _below(cell.value)) for cell in cells]
        optimizer.step(model, grads.map(lambda g: finite.where(g, 0.0)))
        for cell, old in before:
            cell.value = finite.where(_below(cell.value), old).to(cell.device)
        self._follow(scale, finite)
        return finite

    def _follow(self, scale: Tensor, finite: Tensor) -> None:
        good = finite.where(self._good.value + 1.0, 0.0)
        due = good >= float(self.interval)
        grown = due.where(scale * self.growth, scale)
        self._scale.value = finite.where(grown, scale * self.backoff).clamp(SMALLEST, LARGEST)
        self._good.value = due.where(0.0, good)


def _below(x: Tensor) -> Tensor:
    return x.inner() if x.device.is_autodiff else x


def _finite(grads: Gradients) -> Tensor:
    """[] Bool: whether no element of any gradient is NaN or beyond 1.8e19, whose square is infinite."""
    found = [g.square().max() for g in grads]  # fused, where abs, being light, would be stored on its own
    if not found:
        raise TrainingError("loss scale: expected gradients, got none; compute the loss with this model")
    top = found[0]
    for other in found[1:]:
        top = top.maximum(other)
    return top < float("inf")
