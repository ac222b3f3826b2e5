"""Unit tests for WGSL, anybody's: run a shader on NumPy arrays, compare, and see what it does out of bounds or out of order.

With pytest, the fixtures ``shader``, ``gpu`` and ``golden`` come from the plugin; without it, make a ``Shader`` by hand. pytest
loads the plugin wherever this package is installed: so nothing else is loaded before it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wgpu_nn.testing.close import assert_close
    from wgpu_nn.testing.launch import Cost
    from wgpu_nn.testing.memory import Out
    from wgpu_nn.testing.shader import Shader

__all__ = ["Cost", "Out", "Shader", "assert_close"]

_HOMES = {"Cost": "launch", "Out": "memory", "Shader": "shader", "assert_close": "close"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return vars(importlib.import_module(f"{__name__}.{_HOMES[name]}"))[name]
