"""Initialisers: how the first values of a parameter are drawn, as configs that are saved with the layer's."""

from __future__ import annotations

import math
from typing import Literal

from wgpu_nn.nn.config import Config
from wgpu_nn.shape import Shape
from wgpu_nn.tensor import Device, Tensor, full, rand, randn


class Constant(Config):
    """Every element ``value``."""

    value: float
    type: Literal["constant"] = "constant"

    def draw(self, shape: Shape, fan_in: int, fan_out: int, device: Device) -> Tensor:
        """Return a Float tensor of ``shape``, drawn on ``device``."""
        return full(shape, float(self.value), device)


class Uniform(Config):
    """U(low, high)."""

    low: float
    high: float
    type: Literal["uniform"] = "uniform"

    def draw(self, shape: Shape, fan_in: int, fan_out: int, device: Device) -> Tensor:
        """Return a Float tensor of ``shape``, drawn on ``device``."""
        return rand(shape, device) * (self.high - self.low) + self.low


class Normal(Config):
    """N(mean, std)."""

    mean: float = 0.0
    std: float = 1.0
    type: Literal["normal"] = "normal"

    def draw(self, shape: Shape, fan_in: int, fan_out: int, device: Device) -> Tensor:
        """Return a Float tensor of ``shape``, drawn on ``device``."""
        return randn(shape, device) * self.std + self.mean


class KaimingUniform(Config):
    """U(-a, a) with a = gain sqrt(3 / fan_in) (He et al. 2015).

    The default gain of 1 / sqrt(3) gives a = 1 / sqrt(fan_in), the usual choice for linear and convolution layers.
    """

    gain: float = 1 / math.sqrt(3)
    fan_out_only: bool = False
    type: Literal["kaiming_uniform"] = "kaiming_uniform"

    def draw(self, shape: Shape, fan_in: int, fan_out: int, device: Device) -> Tensor:
        """Return a Float tensor of ``shape``, drawn on ``device``."""
        bound = self.gain * math.sqrt(3 / max(fan_out if self.fan_out_only else fan_in, 1))
        return rand(shape, device) * (2 * bound) - bound


class KaimingNormal(Config):
    """N(0, gain / sqrt(fan_in)) (He et al. 2015)."""

    gain: float = math.sqrt(2)
    fan_out_only: bool = False
    type: Literal["kaiming_normal"] = "kaiming_normal"

    def draw(self, shape: Shape, fan_in: int, fan_out: int, device: Device) -> Tensor:
        """Return a Float tensor of ``shape``, drawn on ``device``."""
        return randn(shape, device) * (self.gain / math.sqrt(max(fan_out if self.fan_out_only else fan_in, 1)))


class XavierUniform(Config):
    """U(-a, a) with a = gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""

    gain: float = 1.0
    type: Literal["xavier_uniform"] = "xavier_uniform"

    def draw(self, shape: Shape, fan_in: int, fan_out: int, device: Device) -> Tensor:
        """Return a Float tensor of ``shape``, drawn on ``device``."""
        bound = self.gain * math.sqrt(6 / max(fan_in + fan_out, 1))
        return rand(shape, device) * (2 * bound) - bound


class XavierNormal(Config):
    """N(0, gain sqrt(2 / (fan_in + fan_out))) (Glorot and Bengio 2010)."""

    gain: float = 1.0
    type: Literal["xavier_normal"] = "xavier_normal"

    def draw(self, shape: Shape, fan_in: int, fan_out: int, device: Device) -> Tensor:
        """Return a Float tensor of ``shape``, drawn on ``device``."""
        return randn(shape, device) * (self.gain * math.sqrt(2 / max(fan_in + fan_out, 1)))


Initializer = KaimingUniform | KaimingNormal | XavierUniform | XavierNormal | Normal | Uniform | Constant
