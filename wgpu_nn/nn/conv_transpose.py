"""Transposed convolution layers over one, two and three axes: from a convolution's result back to its input's size."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from wgpu_nn.errors import ShapeError
from wgpu_nn.nn.config import Config, field, pair
from wgpu_nn.nn.conv import Pads, Pads3, further
from wgpu_nn.nn.init import Initializer, KaimingUniform
from wgpu_nn.nn.module import Module, Param
from wgpu_nn.nn.window import Pair, Triple, Word, check_channels, check_extra, pads, parameters, triple
from wgpu_nn.shape import Shape
from wgpu_nn.tensor import Device, Tensor


class ConvTranspose1d(Module):
    """The transpose of Conv1d, with a weight of [in, out / groups, length]: each element adds its multiple of it."""

    weight: Param
    bias: Param | None
    stride: int
    padding: Pair  # (left, right), taken off the result
    output_padding: int  # added to the right of it
    dilation: int
    groups: int

    def forward(self, x: Tensor[3]) -> Tensor[3]:
        """[batch, in, l] -> [batch, out, l'] with l' = (l - 1) stride - pads + dilation (k - 1) + output_padding + 1."""
        window = {"stride": (1, self.stride), "padding": ((0, 0), self.padding), "dilation": (1, self.dilation)}
        weight = self.weight.value.unsqueeze(2)
        check_channels("conv_transpose1d", x, weight.shape[0])
        extra = (0, self.output_padding)
        return _transposed(x.unsqueeze(2), weight, self.bias, extra, {**window, "groups": self.groups}).squeeze(2)

    def extra(self) -> str:
        into, out, kernel = self.weight.shape
        head = f"{into} -> {out * self.groups}, kernel={kernel}, stride={self.stride}, padding={list(self.padding)}"
        more = f", output_padding={self.output_padding}" if self.output_padding else ""
        return head + more + further(self.dilation, 1, self.groups)


class ConvTranspose1dConfig(Config):
    """Of a ConvTranspose1d layer. ``padding`` is that of the convolution whose transpose it is, spelled as in
    Conv1dConfig; ``output_padding`` tells apart the input lengths that a stride makes equal."""

    channels: Pair = field(converter=pair)
    kernel_size: int
    stride: int = 1
    dilation: int = 1
    groups: int = Field(default=1, gt=0)
    padding: Word | int | Pair = "valid"
    output_padding: int = 0
    bias: bool = True
    initializer: Initializer = KaimingUniform()

    def init(self, device: Device | None = None) -> ConvTranspose1d:
        """Return the layer with its parameters drawn on ``device``."""
        kernel, stride, dilation = (self.kernel_size,), (self.stride,), (self.dilation,)
        name, bare = "ConvTranspose1dConfig", self.padding
        weight, bias = parameters(
            name, self.channels, kernel, stride + dilation, self.groups, self.initializer, self.bias, device, True
        )
        (padding,) = pads(name, bare if isinstance(bare, str) else (bare,), kernel, stride, dilation)
        check_extra(name, (self.output_padding,), stride, dilation)
        return ConvTranspose1d(
            weight=weight,
            bias=bias,
            stride=self.stride,
            padding=padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class ConvTranspose2d(Module):
    """The transpose of Conv2d, with a weight of [in, out / groups, height, width]: each pixel adds its multiple of it."""

    weight: Param
    bias: Param | None
    stride: Pair
    padding: Pads  # ((top, bottom), (left, right)), taken off the result
    output_padding: Pair  # added below and to the right of it
    dilation: Pair
    groups: int

    def forward(self, x: Tensor[4]) -> Tensor[4]:
        """[batch, in, h, w] -> [batch, out, h', w'] with h' = (h - 1) stride - pads + dilation (k - 1) + output_padding + 1."""
        window = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}
        check_channels("conv_transpose2d", x, self.weight.shape[0])
        return _transposed(x, self.weight.value, self.bias, self.output_padding, window)

    def extra(self) -> str:
        return _extra(self.weight.shape, self.stride, self.padding, self.output_padding, self.dilation, self.groups)


class ConvTranspose2dConfig(Config):
    """Of a ConvTranspose2d layer. ``padding`` is that of the convolution whose transpose it is, spelled as in
    Conv2dConfig; ``output_padding`` tells apart the input sizes that a stride makes equal."""

    channels: Pair = field(converter=pair)
    kernel_size: Pair = field(converter=pair)
    stride: Pair = field(default=(1, 1), converter=pair)
    dilation: Pair = field(default=(1, 1), converter=pair)
    groups: int = Field(default=1, gt=0)
    padding: Word | Pair | Pads = "valid"
    output_padding: Pair = field(default=(0, 0), converter=pair)
    bias: bool = True
    initializer: Initializer = KaimingUniform()

    def init(self, device: Device | None = None) -> ConvTranspose2d:
        """Return the layer with its parameters drawn on ``device``."""
        name, steps = "ConvTranspose2dConfig", self.stride + self.dilation
        weight, bias = parameters(
            name, self.channels, self.kernel_size, steps, self.groups, self.initializer, self.bias, device, True
        )
        rows, columns = pads(name, self.padding, self.kernel_size, self.stride, self.dilation)
        check_extra(name, self.output_padding, self.stride, self.dilation)
        return ConvTranspose2d(
            weight=weight,
            bias=bias,
            stride=self.stride,
            padding=(rows, columns),
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class ConvTranspose3d(Module):
    """The transpose of Conv3d, with a weight of [in, out / groups, *kernel]: each voxel adds its multiple of it."""

    weight: Param
    bias: Param | None
    stride: Triple
    padding: Pads3  # ((front, back), (top, bottom), (left, right)), taken off the result
    output_padding: Triple  # added behind, below and to the right of it
    dilation: Triple
    groups: int

    def forward(self, x: Tensor[5]) -> Tensor[5]:
        """[batch, in, d, h, w] -> [batch, out, d', h', w'] with
        d' = (d - 1) stride - pads + dilation (k - 1) + output_padding + 1."""
        window = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}
        check_channels("conv_transpose3d", x, self.weight.shape[0])
        return _transposed(x, self.weight.value, self.bias, self.output_padding, window)

    def extra(self) -> str:
        return _extra(self.weight.shape, self.stride, self.padding, self.output_padding, self.dilation, self.groups)


class ConvTranspose3dConfig(Config):
    """Of a ConvTranspose3d layer. ``padding`` is that of the convolution whose transpose it is, spelled as in
    Conv3dConfig; ``output_padding`` tells apart the input sizes that a stride makes equal."""

    channels: Pair = field(converter=pair)
    kernel_size: Triple = field(converter=triple)
    stride: Triple = field(default=(1, 1, 1), converter=triple)
    dilation: Triple = field(default=(1, 1, 1), converter=triple)
    groups: int = Field(default=1, gt=0)
    padding: Word | Triple | Pads3 = "valid"
    output_padding: Triple = field(default=(0, 0, 0), converter=triple)
    bias: bool = True
    initializer: Initializer = KaimingUniform()

    def init(self, device: Device | None = None) -> ConvTranspose3d:
        """Return the layer with its parameters drawn on ``device``."""
        name, steps = "ConvTranspose3dConfig", self.stride + self.dilation
        weight, bias = parameters(
            name, self.channels, self.kernel_size, steps, self.groups, self.initializer, self.bias, device, True
        )
        slices, rows, columns = pads(name, self.padding, self.kernel_size, self.stride, self.dilation)
        check_extra(name, self.output_padding, self.stride, self.dilation)
        return ConvTranspose3d(
            weight=weight,
            bias=bias,
            stride=self.stride,
            padding=(slices, rows, columns),
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )


def _transposed(x: Tensor, weight: Tensor, bias: Param | None, extra: Shape, window: dict[str, Any]) -> Tensor:
    """Return the input gradient of the convolution that ``window`` describes, of a size chosen here, plus the bias."""
    axes = x.rank - 2
    rows = zip(
        x.shape[2:], weight.shape[2:], window["stride"], window["padding"], window["dilation"], extra, strict=True
    )
    sizes = [(n - 1) * s - sum(pair) + d * (k - 1) + more + 1 for n, k, s, pair, d, more in rows]
    if min(sizes) < 1:
        raise ShapeError(
            f"conv_transpose{axes}d: expected a result of sizes of 1 or more, got {sizes} for an input {list(x.shape)} and "
            f"a weight {list(weight.shape)}; pad less"
        )
    channels = weight.shape[1] * window["groups"]
    out = x.run(f"conv{axes}d_input_grad", x, weight, shape=(x.shape[0], channels, *sizes), **window)
    return out if bias is None else out + bias.value.reshape(-1, *(1,) * axes)


def _extra(
    weight: Shape, stride: Shape, padding: tuple[Pair, ...], output_padding: Shape, dilation: Shape, groups: int
) -> str:
    into, out, *kernel = weight
    sides = [list(p) for p in padding]
    head = f"{into} -> {out * groups}, kernel={kernel}, stride={list(stride)}, padding={sides}"
    more = f", output_padding={list(output_padding)}" if any(output_padding) else ""
    return head + more + further(dilation, (1,) * len(kernel), groups)
