"""Dropout: random zeros while training, nothing otherwise."""

from __future__ import annotations

from pydantic import Field

from wgpu_nn.nn.config import Config
from wgpu_nn.nn.module import Module
from wgpu_nn.tensor import Tensor, bernoulli


class Dropout(Module):
    """Sets elements to 0 with probability ``prob`` and scales the others by 1 / (1 - prob) (Srivastava et al. 2014).

    Active on autodiff devices only. The mask comes from the device's counter-based generator: the same seed gives
    the same masks.
    """

    prob: float

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...], any rank."""
        if not x.device.is_autodiff or self.prob == 0.0:
            return x
        keep = 1.0 - self.prob
        if keep == 0.0:
            return x * 0.0
        return bernoulli(x.shape, keep, x.device).where(x * (1.0 / keep), 0.0)


class DropoutConfig(Config):
    """Of a Dropout layer."""

    prob: float = Field(ge=0.0, le=1.0)

    def init(self) -> Dropout:
        """Return the layer; it has no parameters."""
        return Dropout(prob=self.prob)
