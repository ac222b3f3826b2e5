"""The two-dimensional convolution layer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from wgpu_nn.errors import ConfigError
from wgpu_nn.nn.config import Config, field, pair
from wgpu_nn.nn.init import Initializer, KaimingUniform
from wgpu_nn.nn.module import Module, Param
from wgpu_nn.tensor import Device, Tensor, default_device

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


class Conv2d(Module):
    """Cross-correlation of [batch, channels, height, width] with a weight of [out, in / groups, height, width]."""

    weight: Param
    bias: Param | None
    stride: Pair
    padding: Pads  # ((top, bottom), (left, right))
    dilation: Pair
    groups: int

    def forward(self, x: Tensor[4]) -> Tensor[4]:
        """[batch, in, h, w] -> [batch, out, h', w'] with h' = floor((h + pads - dilation (k - 1) - 1) / stride) + 1."""
        bias = () if self.bias is None else (self.bias.value,)
        window = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}
        return x.run("conv2d", x, self.weight.value, *bias, **window)

    def extra(self) -> str:
        out, into, *kernel = self.weight.shape
        sides = [list(p) for p in self.padding]
        return f"{into * self.groups} -> {out}, kernel={kernel}, stride={list(self.stride)}, padding={sides}"


class Conv2dConfig(Config):
    """Of a Conv2d layer. ``padding`` is "valid" (none), "same" (with stride 1 the size is kept; an odd one out goes to
    the end), one size per axis, or a pair per axis."""

    channels: Pair = field(converter=pair)
    kernel_size: Pair = field(converter=pair)
    stride: Pair = field(default=(1, 1), converter=pair)
    dilation: Pair = field(default=(1, 1), converter=pair)
    groups: int = Field(default=1, gt=0)
    padding: Literal["valid", "same"] | Pair | Pads = "valid"
    bias: bool = True
    initializer: Initializer = KaimingUniform()

    def pads(self) -> Pads:
        """Return the padding as ((top, bottom), (left, right))."""
        if self.padding == "valid":
            return ((0, 0), (0, 0))
        if self.padding == "same":
            if self.stride != (1, 1):
                raise ConfigError(
                    f'Conv2dConfig.padding: "same" expects a stride of 1, got {self.stride}; give the padding'
                )
            spans = [d * (k - 1) for k, d in zip(self.kernel_size, self.dilation, strict=True)]
            return ((spans[0] // 2, spans[0] - spans[0] // 2), (spans[1] // 2, spans[1] - spans[1] // 2))
        rows, columns = self.padding
        return (
            (rows, rows) if isinstance(rows, int) else rows,
            (columns, columns) if isinstance(columns, int) else columns,
        )

    def init(self, device: Device | None = None) -> Conv2d:
        """Return the layer with its parameters drawn on ``device``."""
        where = default_device() if device is None else device
        into, out = self.channels
        if (
            min(into, out, *self.kernel_size, *self.stride, *self.dilation) < 1
            or into % self.groups
            or out % self.groups
        ):
            raise ConfigError(
                f"Conv2dConfig: expected sizes of 1 or more and channels divisible by {self.groups} groups, got {self}"
            )
        window = self.kernel_size[0] * self.kernel_size[1]
        fans = (into // self.groups * window, out // self.groups * window)
        weight = Param(self.initializer.draw((out, into // self.groups, *self.kernel_size), *fans, where))
        bias = Param(self.initializer.draw((out,), *fans, where)) if self.bias else None
        return Conv2d(
            weight=weight,
            bias=bias,
            stride=self.stride,
            padding=self.pads(),
            dilation=self.dilation,
            groups=self.groups,
        )
