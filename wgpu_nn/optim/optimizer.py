"""Optimizer: the loop over a module's parameters; what is done to one of them is left to the subclass."""

from __future__ import annotations

import abc
from collections.abc import Mapping

from wgpu_nn.errors import RecordError, TrainingError
from wgpu_nn.nn import Module, Param
from wgpu_nn.tensor import Gradients, Tensor, zeros_like

# A host number in eager mode; what a captured step reads from the GPU otherwise.
Hyper = Mapping[str, float]


class Optimizer(abc.ABC):
    """Replaces a module's parameters by better ones. ``lr`` may be changed between steps."""

    slots: tuple[str, ...] = ()  # names of the tensors kept per parameter, each starting as zeros

    def __init__(self, lr: float) -> None:
        self.lr = lr
        self.steps = 0
        self._state: dict[str, dict[str, Tensor]] = {}

    def hyper(self) -> dict[str, float]:
        """Return the numbers of this step that depend on the rate and the step count, in double precision."""
        return {"lr": self.lr}

    @abc.abstractmethod
    def apply_single(
        self, p: Tensor, g: Tensor, state: Mapping[str, Tensor], hyper: Hyper
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a parameter's new value and state from its gradient."""

    def init_single(self, p: Tensor) -> dict[str, Tensor]:
        """Return a parameter's first state."""
        return {name: zeros_like(p) for name in self.slots}

    def step(self, model: Module, grads: Gradients) -> None:
        """Update every trainable parameter that has a gradient."""
        self.steps += 1
        hyper = self.hyper()
        moved = False
        for name, param in model.named_params():
            g = grads.get(param.value) if param.trainable else None
            if g is None:
                continue
            moved = True
            value = param.value.inner()
            if name not in self._state:
                self._state[name] = self.init_single(value)
            new, self._state[name] = self.apply_single(value, g, self._state[name], hyper)
            param.value = new.to(param.value.device)
        if not moved:
            self.steps -= 1
            raise TrainingError(
                "step: no gradient belongs to this model; compute the loss with this very model, on an autodiff device"
            )

    def state(self) -> dict[str, Tensor]:
        """Return the tensors kept, as ``<parameter>/<slot>``."""
        return {f"{name}/{slot}": t for name, slots in self._state.items() for slot, t in slots.items()}

    def load_state(self, model: Module, state: Mapping[str, Tensor], steps: int) -> None:
        """Replace the state by a saved one; raise, and change nothing, if it does not fit ``model``."""
        params: dict[str, Param] = dict(model.named_params())
        loaded: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            name, _, slot = key.rpartition("/")
            if name not in params or slot not in self.slots or value.shape != params[name].shape:
                raise RecordError(
                    f"load {type(self).__name__}: {key} {list(value.shape)} does not fit the model or the optimizer"
                )
            device = params[name].value.device
            loaded.setdefault(name, {})[slot] = value.to(device.inner() if device.is_autodiff else device)
        for name, slots in loaded.items():
            if set(slots) != set(self.slots):
                raise RecordError(f"load {type(self).__name__}: expected {self.slots} for {name}, got {tuple(slots)}")
        self._state, self.steps = loaded, steps


def decayed(g: Tensor, p: Tensor, weight_decay: float) -> Tensor:
    """Return the gradient with that of 0.5 weight_decay |p|^2 added."""
    return g + p * weight_decay if weight_decay else g
