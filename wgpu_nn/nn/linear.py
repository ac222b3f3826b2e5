"""The fully connected layer."""

from __future__ import annotations

from pydantic import Field

from wgpu_nn.errors import ShapeError
from wgpu_nn.nn.config import Config
from wgpu_nn.nn.init import Initializer, KaimingUniform
from wgpu_nn.nn.module import Module, Param
from wgpu_nn.tensor import Device, Tensor, default_device


class Linear(Module):
    """y = x W + b, with W of shape [d_input, d_output]."""

    weight: Param
    bias: Param | None

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_input] -> [..., d_output]; ShapeError for other features."""
        if not x.rank or x.shape[-1] != self.weight.shape[0]:
            raise ShapeError(f"linear: expected {self.weight.shape[0]} features on the last axis, got {list(x.shape)}")
        out = x.matmul(self.weight.value)
        return out if self.bias is None else out + self.bias.value

    def extra(self) -> str:
        d_input, d_output = self.weight.shape
        return f"{d_input} -> {d_output}, bias={self.bias is not None}"


class LinearConfig(Config):
    """Of a Linear layer; both weight and bias are drawn with the fan of the weight."""

    d_input: int = Field(gt=0)
    d_output: int = Field(gt=0)
    bias: bool = True
    initializer: Initializer = KaimingUniform()

    def init(self, device: Device | None = None) -> Linear:
        """Return the layer with its parameters drawn on ``device``."""
        where = default_device() if device is None else device
        fans = (self.d_input, self.d_output)
        weight = Param(self.initializer.draw((self.d_input, self.d_output), *fans, where))
        bias = Param(self.initializer.draw((self.d_output,), *fans, where)) if self.bias else None
        return Linear(weight=weight, bias=bias)
