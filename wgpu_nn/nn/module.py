"""Module and Param: a tree of declared fields whose parameters can be trained, saved, cloned, moved and printed."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, cast, dataclass_transform

from wgpu_nn.dtype import F16, F32, DType, Float
from wgpu_nn.errors import KindError, RecordError
from wgpu_nn.tensor import Cell, Device, Tensor, checked, mentions_tensor


class Param(Cell):
    """A named place for a tensor of a module. Trainable ones are leaves on autodiff devices.

    ``param.value`` is the tensor; assigning a new one of the same shape replaces it, as optimizers do.
    """

    __slots__ = ("trainable",)

    def __init__(self, value: Tensor, trainable: bool = True) -> None:
        self.trainable = trainable
        super().__init__(value)

    def _prepared(self, value: Tensor) -> Tensor:
        return value.require_grad() if self.trainable and value.device.is_autodiff else value

    def moved(self, device: Device) -> Param:
        """Return the same parameter on another device."""
        return Param(self.value.to(device), self.trainable)

    def __repr__(self) -> str:
        frozen = "" if self.trainable else ", not trained"
        return f"Param({list(self.shape)}{frozen})"


@dataclass_transform(eq_default=False)
class Module:
    """Base of all layers and models. Subclasses declare fields, which make up the constructor, and any number of
    forward functions::

        class Model(Module):
            linear: Linear
            activation: ReLU

            def forward(self, x: Tensor[2]) -> Tensor[2]:
                return self.activation.forward(self.linear.forward(x))

    Tensor annotations of ranks and kinds are checked at every call. Fields may be modules, Params, lists, tuples and
    dicts of these, and plain values.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, member in list(cls.__dict__.items()):
            if isinstance(member, types.FunctionType) and not name.startswith("__") and mentions_tensor(member):
                setattr(cls, name, checked(member))
        dataclasses.dataclass(eq=False, repr=False)(cls)

    # --- the tree --------------------------------------------------------------------------------------------------
    def fields(self) -> dict[str, object]:
        """Return the declared fields by name."""
        declared = cast(Any, self)
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(declared)}

    def named_params(self) -> Iterator[tuple[str, Param]]:
        """Yield every parameter with its path, such as ``conv1.weight``, in order of declaration.

        One that appears twice in the tree is yielded once, under its first path.
        """
        seen: set[int] = set()
        for path, leaf in _leaves("", self):
            if isinstance(leaf, Param) and id(leaf) not in seen:
                seen.add(id(leaf))
                yield path, leaf

    def params(self) -> list[Param]:
        """Return every parameter."""
        return [p for _, p in self.named_params()]

    def num_params(self) -> int:
        """Return the number of trainable elements."""
        return sum(p.tensor.size for p in self.params() if p.trainable)

    @property
    def device(self) -> Device | None:
        """The device of the parameters, or None if there are none."""
        first = next(iter(self.params()), None)
        return None if first is None else first.device

    def map_params(self, fn: Callable[[Param], Param]) -> Self:
        """Return a copy of the tree with ``fn`` applied to each parameter; shared ones stay shared."""
        done: dict[int, Param] = {}

        def once(p: Param) -> Param:
            if id(p) not in done:
                done[id(p)] = fn(p)
            return done[id(p)]

        return cast(Self, _mapped(self, once))

    def clone(self) -> Self:
        """Return a copy whose parameters can change without this module's changing."""
        return self.map_params(lambda p: Param(p.value.detach(), p.trainable))

    def to_device(self, device: Device) -> Self:
        """Return a copy on another device."""
        return self.map_params(lambda p: p.moved(device))

    def to_dtype(self, dtype: DType) -> Self:
        """Return a copy whose Float parameters have another element type, float16 or float32.

        Ops on halves and floats give floats: such a module wants inputs of its own type. For training in halves see
        ``wgpu_nn.train.working_copy``.
        """

        def cast(p: Param) -> Param:
            value = p.value.detach()
            return Param(value.cast(dtype) if value.kind is Float else value, p.trainable)

        return self.map_params(cast)

    def half(self) -> Self:
        """Return a copy whose Float parameters are float16."""
        return self.to_dtype(F16)

    def float(self) -> Self:
        """Return a copy whose Float parameters are float32."""
        return self.to_dtype(F32)

    def valid(self) -> Self:
        """Return a copy on the device below the autodiff one: dropout rests, and nothing is recorded."""
        return self.map_params(lambda p: p.moved(p.device.inner() if p.device.is_autodiff else p.device))

    def freeze(self) -> Self:
        """Return a copy whose parameters are not trained."""
        return self.map_params(lambda p: Param(p.value.detach(), trainable=False))

    # --- state -----------------------------------------------------------------------------------------------------
    def state(self) -> dict[str, Tensor]:
        """Return every parameter's tensor by path."""
        return {name: p.value for name, p in self.named_params()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Replace every parameter; raise, and change nothing, if names, shapes or kinds differ."""
        mine = dict(self.named_params())
        missing, unknown = sorted(mine.keys() - state.keys()), sorted(state.keys() - mine.keys())
        if missing or unknown:
            raise RecordError(
                f"load {type(self).__name__}: the saved parameters are those of another model: "
                f"missing {missing or 'none'}, unknown {unknown or 'none'}"
            )
        for name, p in mine.items():
            if state[name].shape != p.shape or state[name].kind is not p.tensor.kind:
                raise RecordError(
                    f"load {type(self).__name__}: expected {name} of {p.tensor.kind} {list(p.shape)}, "
                    f"got {state[name].kind} {list(state[name].shape)}; it was saved from another configuration"
                )
        for name, p in mine.items():
            p.value = state[name]

    # --- printing --------------------------------------------------------------------------------------------------
    def extra(self) -> str:
        """Return what a layer prints of its settings."""
        plain = {k: v for k, v in self.fields().items() if not _has_params(v) and not isinstance(v, Module)}
        return ", ".join(f"{k}={v}" for k, v in plain.items())

    def tree(self, name: str = "", indent: int = 0) -> str:
        """Return the module as an indented tree with parameter counts."""
        count = self.num_params()
        note = f"  # {count:,} parameters" if count else ""
        head = "  " * indent + (f"{name}: " if name else "") + f"{type(self).__name__}({self.extra()}){note}"
        lines = [head]
        for key, value in self.fields().items():
            for path, child in _modules(key, value):
                lines.append(child.tree(path, indent + 1))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.tree()


def _leaves(path: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Module):
        for name, child in value.fields().items():
            yield from _leaves(f"{path}.{name}" if path else name, child)
    elif isinstance(value, list | tuple):
        for i, child in enumerate(cast(list[object], value)):
            yield from _leaves(f"{path}.{i}", child)
    elif isinstance(value, dict):
        for key, child in cast(dict[object, object], value).items():
            yield from _leaves(f"{path}.{key}", child)
    elif isinstance(value, Tensor):
        raise KindError(f"module: expected a Param at {path}, got a bare Tensor; wrap it in Param(...)")
    else:
        yield path, value


def _mapped(value: object, fn: Callable[[Param], Param]) -> object:
    if isinstance(value, Param):
        return fn(value)
    if isinstance(value, Module):
        made = object.__new__(type(value))
        for name, child in value.__dict__.items():
            object.__setattr__(made, name, _mapped(child, fn))
        return made
    if isinstance(value, list | tuple):
        parts = [_mapped(v, fn) for v in cast(list[object], value)]
        return parts if isinstance(value, list) else tuple(parts)
    if isinstance(value, dict):
        return {k: _mapped(v, fn) for k, v in cast(dict[object, object], value).items()}
    return value


def _modules(path: str, value: object) -> Iterator[tuple[str, Module]]:
    if isinstance(value, Module):
        yield path, value
    elif isinstance(value, list | tuple):
        for i, child in enumerate(cast(list[object], value)):
            yield from _modules(f"{path}.{i}", child)
    elif isinstance(value, dict):
        for key, child in cast(dict[object, object], value).items():
            yield from _modules(f"{path}.{key}", child)


def _has_params(value: object) -> bool:
    return any(isinstance(leaf, Param) for _, leaf in _leaves("", value)) or any(True for _ in _modules("", value))
