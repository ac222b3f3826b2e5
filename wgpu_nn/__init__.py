"""wgpu_nn: deep learning on any GPU that WebGPU reaches, from plain WGSL shaders.

Importing the package touches no GPU; the first device that is named does. What it offers is loaded when it is asked for:
whoever only tests shaders loads no tensors.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from wgpu_nn import errors, switches

if TYPE_CHECKING:
    from wgpu_nn.dtype import Bool, DType, Float, Int, Kind, float16, float32
    from wgpu_nn.nn import Config, Module, Param
    from wgpu_nn.tensor import (
        Device,
        Gradients,
        Tensor,
        arange,
        bernoulli,
        cat,
        default_device,
        eye,
        full,
        ones,
        ones_like,
        rand,
        randn,
        set_default_device,
        stack,
        tensor,
        where,
        zeros,
        zeros_like,
    )

__version__ = "0.1.0"

__all__ = [
    "Bool",
    "Config",
    "DType",
    "Device",
    "Float",
    "Gradients",
    "Int",
    "Kind",
    "Module",
    "Param",
    "Tensor",
    "arange",
    "bernoulli",
    "cat",
    "default_device",
    "errors",
    "eye",
    "float16",
    "float32",
    "full",
    "ones",
    "ones_like",
    "rand",
    "randn",
    "set_default_device",
    "stack",
    "switches",
    "tensor",
    "where",
    "zeros",
    "zeros_like",
]

_ROOMS = ("dtype", "nn", "tensor")  # where the names are, in the order in which they are looked for


def __getattr__(name: str) -> object:
    if name in __all__:
        rooms = (importlib.import_module(f"wgpu_nn.{room}") for room in _ROOMS)
        found = next(vars(room)[name] for room in rooms if name in vars(room))
        if name != "tensor":
            globals()[name] = found
        return found
    if name in _ROOMS:
        return importlib.import_module(f"wgpu_nn.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _FrontDoor(ModuleType):
    """A room and a function are both named tensor. Here the name is the function's, whoever imports the room."""

    @property
    def tensor(self) -> object:
        return __getattr__("tensor")

    @tensor.setter
    def tensor(self, room: ModuleType) -> None:
        pass


sys.modules[__name__].__class__ = _FrontDoor
