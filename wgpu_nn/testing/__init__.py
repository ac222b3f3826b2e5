"""Unit tests for WGSL, anybody's: run a shader on NumPy arrays, compare, and see what it does out of bounds or out of order.

With pytest, the fixtures ``shader``, ``gpu`` and ``golden`` come from the plugin; without it, make a ``Shader`` by hand.
"""

from wgpu_nn.testing.close import assert_close
from wgpu_nn.testing.launch import Cost
from wgpu_nn.testing.memory import Out
from wgpu_nn.testing.shader import Shader

__all__ = ["Cost", "Out", "Shader", "assert_close"]
