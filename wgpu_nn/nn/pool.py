"""Pooling layers over [batch, channels, height, width]."""

from __future__ import annotations

from wgpu_nn.nn.config import Config, field, pair
from wgpu_nn.nn.module import Module
from wgpu_nn.tensor import Tensor

Pair = tuple[int, int]


def _window(kernel: Pair, stride: Pair, padding: Pair) -> dict[str, object]:
    (top, left) = padding
    return {"kernel": kernel, "stride": stride, "padding": ((top, top), (left, left))}


class AdaptiveAvgPool2d(Module):
    """Average over bins that make up ``output_size``; bin i of n covers floor(i h / n) to ceil((i + 1) h / n)."""

    output_size: Pair

    def forward(self, x: Tensor[4]) -> Tensor[4]:
        """[batch, channels, h, w] -> [batch, channels, *output_size]."""
        return x.run("adaptive_avg_pool2d", x, size=self.output_size)


class AdaptiveAvgPool2dConfig(Config):
    """Of an AdaptiveAvgPool2d layer."""

    output_size: Pair = field(converter=pair)

    def init(self) -> AdaptiveAvgPool2d:
        """Return the layer; it has no parameters."""
        return AdaptiveAvgPool2d(output_size=self.output_size)


class MaxPool2d(Module):
    """Largest element of each window; padding never wins."""

    kernel_size: Pair
    strides: Pair
    padding: Pair

    def forward(self, x: Tensor[4]) -> Tensor[4]:
        """[batch, channels, h, w] -> [batch, channels, h', w']."""
        return x.run("max_pool2d", x, **_window(self.kernel_size, self.strides, self.padding))


class MaxPool2dConfig(Config):
    """Of a MaxPool2d layer; the stride is the kernel's size unless it is given."""

    kernel_size: Pair = field(converter=pair)
    strides: Pair | None = None
    padding: Pair = field(default=(0, 0), converter=pair)

    def init(self) -> MaxPool2d:
        """Return the layer; it has no parameters."""
        return MaxPool2d(kernel_size=self.kernel_size, strides=self.strides or self.kernel_size, padding=self.padding)


class AvgPool2d(Module):
    """Mean of each window."""

    kernel_size: Pair
    strides: Pair
    padding: Pair
    count_include_pad: bool

    def forward(self, x: Tensor[4]) -> Tensor[4]:
        """[batch, channels, h, w] -> [batch, channels, h', w']."""
        window = _window(self.kernel_size, self.strides, self.padding)
        return x.run("avg_pool2d", x, include_pad=self.count_include_pad, **window)


class AvgPool2dConfig(Config):
    """Of an AvgPool2d layer; the stride is the kernel's size unless it is given."""

    kernel_size: Pair = field(converter=pair)
    strides: Pair | None = None
    padding: Pair = field(default=(0, 0), converter=pair)
    count_include_pad: bool = True

    def init(self) -> AvgPool2d:
        """Return the layer; it has no parameters."""
        return AvgPool2d(
            kernel_size=self.kernel_size,
            strides=self.strides or self.kernel_size,
            padding=self.padding,
            count_include_pad=self.count_include_pad,
        )
