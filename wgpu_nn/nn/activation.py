"""Activation layers."""

from __future__ import annotations

from wgpu_nn.nn.module import Module
from wgpu_nn.tensor import Tensor


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...]."""
        return x.relu()


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...]."""
        return x.sigmoid()


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...]."""
        return x.tanh()


class Gelu(Module):
    """x times the standard normal's distribution function at x."""

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...]."""
        return x.gelu()
