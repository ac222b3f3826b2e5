"""``Tensor[3]``, ``Tensor[3, Int]`` as annotations, and the check of a call against them."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar, cast

from wgpu_nn.dtype import Float, Kind
from wgpu_nn.errors import KindError, ShapeError
from wgpu_nn.ops import Algebra

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class TensorType:
    """What an annotation asks for: a rank, a kind, and whether None will do as well."""

    rank: int
    kind: Kind = Float
    optional: bool = False

    def __or__(self, other: object) -> TensorType:
        if other is None or other is type(None):
            return replace(self, optional=True)
        return NotImplemented

    __ror__ = __or__

    def __repr__(self) -> str:
        kind = "" if self.kind is Float else f", {self.kind}"
        return f"Tensor[{self.rank}{kind}]" + (" | None" if self.optional else "")

    def check(self, where: str, value: object) -> None:
        """Raise if ``value`` is not such a tensor."""
        if value is None and self.optional:
            return
        if not isinstance(value, Algebra):  # a Tensor: these are all that users have
            raise KindError(
                f"{where}: expected a {self}, got {type(value).__name__}; make it one with wgpu_nn.tensor()"
            )
        if value.kind is not self.kind:
            raise KindError(
                f"{where}: expected a {self}, got a {value.kind} tensor of shape {list(value.shape)}; convert it first"
            )
        if value.rank != self.rank:
            raise ShapeError(
                f"{where}: expected a {self}, got rank {value.rank} of shape {list(value.shape)}; reshape it first"
            )


def _resolve(annotation: object, fn: Callable[..., Any]) -> object:
    """Return an annotation's value; text is evaluated where the function was defined, and None says it cannot be."""
    if not isinstance(annotation, str):
        return annotation
    if "Tensor" not in annotation:
        return None
    try:
        return eval(annotation, getattr(fn, "__globals__", {}))
    except (NameError, TypeError, AttributeError):
        return None  # names a type checker alone can see: nothing to check at run time


def _check(where: str, wanted: object, value: object) -> None:
    if isinstance(wanted, TensorType):
        wanted.check(where, value)
    elif isinstance(wanted, types.GenericAlias) and typing.get_origin(wanted) is tuple and isinstance(value, tuple):
        for i, (part, item) in enumerate(zip(typing.get_args(wanted), cast(tuple[object, ...], value), strict=False)):
            _check(f"{where}[{i}]", part, item)


def mentions_tensor(fn: Callable[..., Any]) -> bool:
    """Say whether an annotation of ``fn`` asks for a tensor of some rank."""
    return any(
        isinstance(a, TensorType) or (isinstance(a, str) and "Tensor[" in a) or "Tensor[" in repr(a)
        for a in getattr(fn, "__annotations__", {}).values()
    )


def checked(fn: Callable[P, R]) -> Callable[P, R]:
    """Return ``fn`` with its tensor annotations checked at every call, arguments and result."""
    parameters = inspect.signature(fn).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]

    @functools.cache
    def wanted() -> dict[str, object]:
        found = {name: _resolve(a, fn) for name, a in fn.__annotations__.items()}
        return {name: a for name, a in found.items() if isinstance(a, TensorType | types.GenericAlias)}

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        types_ = wanted()
        for name, value in (*zip(names, args, strict=False), *kwargs.items()):  # whether they fit, the call itself says
            if name in types_:
                _check(f"{fn.__qualname__}({name})", types_[name], value)
        result = fn(*args, **kwargs)
        if "return" in types_:
            _check(f"{fn.__qualname__} -> ", types_["return"], result)
        return result

    return call
