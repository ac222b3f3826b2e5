"""Optimizer: the loop over a module's parameters; what is done to one of them is left to the subclass."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence

from wgpu_nn.dtype import Float, Scalar
from wgpu_nn.errors import RecordError, TrainingError
from wgpu_nn.nn import Module, Param
from wgpu_nn.tensor import Cell, Gradients, Tensor, host_numbers, zeros, zeros_like

# Numbers in eager mode; in a captured step, tensors that hold those of each call.
Hyper = Mapping[str, Tensor | Scalar]


class Optimizer(abc.ABC):
    """Replaces a module's parameters by better ones. ``lr`` may be changed between steps."""

    slots: tuple[str, ...] = ()  # names of the tensors kept per parameter, each starting as zeros

    def __init__(self, lr: float) -> None:
        self.lr = lr
        self.steps = 0
        self._cells: dict[str, dict[str, Cell]] = {}

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
        moved = _moved(model, grads)
        if not moved:
            raise TrainingError(
                "step: no gradient belongs to this model; compute the loss with this model, on an autodiff device"
            )
        device = moved[0][2].device
        self._prepare(moved)
        numbers = host_numbers(device, self._advance)
        hyper = dict(zip(self.hyper(), numbers, strict=True))
        for name, param, g in moved:
            cells = self._cells[name]
            state = {slot: cell.value for slot, cell in cells.items()}
            p, g = (t.cast(t.dtype.wide) for t in (param.value.inner(), g))
            new, changed = self.apply_single(p, g, state, hyper)
            for slot, t in changed.items():
                cells[slot].value = t
            param.value = new.to(param.device)

    def prepare(self, model: Module, grads: Gradients) -> None:
        """Make the first state of each parameter that ``step`` would update and that has none yet."""
        self._prepare(_moved(model, grads))

    def _prepare(self, moved: Sequence[tuple[str, Param, Tensor]]) -> None:
        for name, param, g in moved:
            if name not in self._cells:
                # A captured step must find them as state: they are made outside of its trace.
                with g.device.untraced():
                    # In f32 for halves too: what is kept from step to step would be lost in their rounding.
                    start = self.init_single(zeros(param.shape, g.device, dtype=g.device.backend.dtypes[Float]))
                self._cells[name] = {slot: Cell(t) for slot, t in start.items()}

    def _advance(self) -> list[float]:
        self.steps += 1
        return list(self.hyper().values())

    def cells(self) -> list[Cell]:
        """Return the state's cells."""
        return [c for slots in self._cells.values() for c in slots.values()]

    def state(self) -> dict[str, Tensor]:
        """Return the tensors kept, as ``<parameter>/<slot>``."""
        return {f"{name}/{slot}": c.value for name, slots in self._cells.items() for slot, c in slots.items()}

    def load_state(self, model: Module, state: Mapping[str, Tensor], steps: int) -> None:
        """Replace the state by a saved one; raise, and change nothing, if it does not fit ``model``."""
        params: dict[str, Param] = dict(model.named_params())
        loaded: dict[str, dict[str, Cell]] = {}
        for key, value in state.items():
            name, _, slot = key.rpartition("/")
            if name not in params or slot not in self.slots or value.shape != params[name].shape:
                raise RecordError(
                    f"load {type(self).__name__}: {key} {list(value.shape)} does not fit the model or the optimizer"
                )
            device = params[name].device
            loaded.setdefault(name, {})[slot] = Cell(value.to(device.inner() if device.is_autodiff else device))
        for name, slots in loaded.items():
            if set(slots) != set(self.slots):
                raise RecordError(f"load {type(self).__name__}: expected {self.slots} for {name}, got {tuple(slots)}")
        for name, slots in loaded.items():
            mine = self._cells.get(name)
            if mine is None:
                self._cells[name] = slots
            else:  # a captured step knows the cells: they stay, with new tensors
                for slot, cell in slots.items():
                    mine[slot].value = cell.value
        for name in self._cells.keys() - loaded.keys():
            del self._cells[name]
        self.steps = steps


def _moved(model: Module, grads: Gradients) -> list[tuple[str, Param, Tensor]]:
    """Return the trainable parameters that have a gradient, by name."""
    found = [(name, p, grads.get(p.value)) for name, p in model.named_params() if p.trainable]
    return [(name, p, g) for name, p, g in found if g is not None]


def decayed(g: Tensor, p: Tensor, weight_decay: float) -> Tensor:
    """Return the gradient with that of 0.5 weight_decay |p|^2 added."""
    return g + p * weight_decay if weight_decay else g
