"""Convolution layers over one, two and three axes."""

from __future__ import annotations

from pydantic import Field

from wgpu_nn.nn.config import Config, field, pair
from wgpu_nn.nn.init import Initializer, KaimingUniform
from wgpu_nn.nn.module import Module, Param
from wgpu_nn.nn.window import Pair, Triple, Word, check_channels, pads, parameters, triple
from wgpu_nn.tensor import Device, Tensor

Pads = tuple[Pair, Pair]
Pads3 = tuple[Pair, Pair, Pair]


class Conv1d(Module):
    """Cross-correlation of [batch, channels, length] with a weight of [out, in / groups, length]."""

    weight: Param
    bias: Param | None
    stride: int
    padding: Pair  # (left, right)
    dilation: int
    groups: int

    def forward(self, x: Tensor[3]) -> Tensor[3]:
        """[batch, in, l] -> [batch, out, l'] with l' = floor((l + pads - dilation (k - 1) - 1) / stride) + 1."""
        check_channels("conv1d", x, self.weight.shape[1] * self.groups)
        bias = () if self.bias is None else (self.bias.value,)
        # A plane of one row: views cost nothing.
        window = {"stride": (1, self.stride), "padding": ((0, 0), self.padding), "dilation": (1, self.dilation)}
        out = x.run("conv2d", x.unsqueeze(2), self.weight.value.unsqueeze(2), *bias, groups=self.groups, **window)
        return out.squeeze(2)

    def extra(self) -> str:
        out, into, kernel = self.weight.shape
        head = f"{into * self.groups} -> {out}, kernel={kernel}, stride={self.stride}, padding={list(self.padding)}"
        return head + further(self.dilation, 1, self.groups)


class Conv1dConfig(Config):
    """Of a Conv1d layer. ``padding`` is "valid" (none), "same" (with stride 1 the length is kept; an odd one out goes to
    the end), one size for both ends, or one for each."""

    channels: Pair = field(converter=pair)
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    groups: int = Field(default=1, gt=0)
    padding: Word | int | Pair = "valid"
    bias: bool = True
    initializer: Initializer = KaimingUniform()

    def init(self, device: Device | None = None) -> Conv1d:
        """Return the layer with its parameters drawn on ``device``."""
        kernel, stride, dilation = (self.kernel_size,), (self.stride,), (self.dilation,)
        name, bare = "Conv1dConfig", self.padding
        weight, bias = parameters(
            name, self.channels, kernel, stride + dilation, self.groups, self.initializer, self.bias, device
        )
        (padding,) = pads(name, bare if isinstance(bare, str) else (bare,), kernel, stride, dilation)
        return Conv1d(
            weight=weight,
            bias=bias,
            stride=self.stride,
            padding=padding,
            dilation=self.dilation,
            groups=self.groups,
        )


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
        head = f"{into * self.groups} -> {out}, kernel={kernel}, stride={list(self.stride)}, padding={sides}"
        return head + further(self.dilation, (1, 1), self.groups)


class Conv2dConfig(Config):
    """Of a Conv2d layer. ``padding`` is "valid" (none), "same" (with stride 1 the size is kept; an odd one out goes to
    the end), one size per axis, or a pair per axis."""

    channels: Pair = field(converter=pair)
    kernel_size: Pair = field(converter=pair)
    stride: Pair = field(default=(1, 1), converter=pair)
    dilation: Pair = field(default=(1, 1), converter=pair)
    groups: int = Field(default=1, gt=0)
    padding: Word | Pair | Pads = "valid"
    bias: bool = True
    initializer: Initializer = KaimingUniform()

    def init(self, device: Device | None = None) -> Conv2d:
        """Return the layer with its parameters drawn on ``device``."""
        name, steps = "Conv2dConfig", self.stride + self.dilation
        weight, bias = parameters(
            name, self.channels, self.kernel_size, steps, self.groups, self.initializer, self.bias, device
        )
        rows, columns = pads(name, self.padding, self.kernel_size, self.stride, self.dilation)
        return Conv2d(
            weight=weight,
            bias=bias,
            stride=self.stride,
            padding=(rows, columns),
            dilation=self.dilation,
            groups=self.groups,
        )


class Conv3d(Module):
    """Cross-correlation of [batch, channels, depth, height, width] with a weight of [out, in / groups, *kernel]."""

    weight: Param
    bias: Param | None
    stride: Triple
    padding: Pads3  # ((front, back), (top, bottom), (left, right))
    dilation: Triple
    groups: int

    def forward(self, x: Tensor[5]) -> Tensor[5]:
        """[batch, in, d, h, w] -> [batch, out, d', h', w'] with d' = floor((d + pads - dilation (k - 1) - 1) / stride) + 1."""
        bias = () if self.bias is None else (self.bias.value,)
        window = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}
        return x.run("conv3d", x, self.weight.value, *bias, **window)

    def extra(self) -> str:
        out, into, *kernel = self.weight.shape
        sides = [list(p) for p in self.padding]
        head = f"{into * self.groups} -> {out}, kernel={kernel}, stride={list(self.stride)}, padding={sides}"
        return head + further(self.dilation, (1, 1, 1), self.groups)


class Conv3dConfig(Config):
    """Of a Conv3d layer. ``padding`` is "valid" (none), "same" (with stride 1 the size is kept; an odd one out goes to
    the end), one size per axis, or a pair per axis."""

    channels: Pair = field(converter=pair)
    kernel_size: Triple = field(converter=triple)
    stride: Triple = field(default=(1, 1, 1), converter=triple)
    dilation: Triple = field(default=(1, 1, 1), converter=triple)
    groups: int = Field(default=1, gt=0)
    padding: Word | Triple | Pads3 = "valid"
    bias: bool = True
    initializer: Initializer = KaimingUniform()

    def init(self, device: Device | None = None) -> Conv3d:
        """Return the layer with its parameters drawn on ``device``."""
        name, steps = "Conv3dConfig", self.stride + self.dilation
        weight, bias = parameters(
            name, self.channels, self.kernel_size, steps, self.groups, self.initializer, self.bias, device
        )
        slices, rows, columns = pads(name, self.padding, self.kernel_size, self.stride, self.dilation)
        return Conv3d(
            weight=weight,
            bias=bias,
            stride=self.stride,
            padding=(slices, rows, columns),
            dilation=self.dilation,
            groups=self.groups,
        )


def further(dilation: int | tuple[int, ...], plain: int | tuple[int, ...], groups: int) -> str:
    """Return what a layer prints of settings that are rarely other than 1."""
    parts = [f", dilation={list(dilation) if isinstance(dilation, tuple) else dilation}"] if dilation != plain else []
    return "".join([*parts, *([f", groups={groups}"] if groups > 1 else [])])
