"""Pooling layers over [batch, channels, height, width] and [batch, channels, length]."""

from __future__ import annotations

from typing import Any

from wgpu_nn.errors import ConfigError, ShapeError
from wgpu_nn.nn.config import Config, field, pair
from wgpu_nn.nn.module import Module
from wgpu_nn.nn.window import Pair, Word, pads
from wgpu_nn.shape import Shape
from wgpu_nn.tensor import Tensor

Pads = tuple[Pair, Pair]


def _along(x: Tensor, op: str, kernel: int, stride: int, padding: Pair, **more: Any) -> Tensor:
    """Pool [batch, channels, length] as a plane of one row: views cost nothing."""
    window = {"kernel": (1, kernel), "stride": (1, stride), "padding": ((0, 0), padding)}
    return x.run(op, x.unsqueeze(2), **window, **more).squeeze(2)


def _sides(config: str, padding: Any, kernel: Shape, stride: Shape) -> tuple[Pair, ...]:
    """Return the padding as (before, after) per axis, after a check of the sizes."""
    if min(*kernel, *stride) < 1:
        raise ConfigError(f"{config}: expected sizes of 1 or more, got kernel {list(kernel)} and stride {list(stride)}")
    return pads(config, padding, kernel, stride, (1,) * len(kernel))


class AdaptiveAvgPool1d(Module):
    """Average over bins that make up ``output_size``; bin i of n covers floor(i l / n) to ceil((i + 1) l / n)."""

    output_size: int

    def forward(self, x: Tensor[3]) -> Tensor[3]:
        """[batch, channels, l] -> [batch, channels, output_size]."""
        return x.run("adaptive_avg_pool2d", x.unsqueeze(2), size=(1, self.output_size)).squeeze(2)


class AdaptiveAvgPool1dConfig(Config):
    """Of an AdaptiveAvgPool1d layer."""

    output_size: int

    def init(self) -> AdaptiveAvgPool1d:
        """Return the layer; it has no parameters."""
        return AdaptiveAvgPool1d(output_size=self.output_size)


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


def _largest(x: Tensor, axis: int, bins: int) -> Tensor:
    """Return the largest element of each of the bins that make up ``axis``."""
    n = x.shape[axis]
    if min(n, bins) < 1:
        raise ShapeError(f"adaptive_max_pool: expected sizes of 1 or more, got {list(x.shape)} to {bins} bins")
    width = max(-(-(i + 1) * n // bins) - i * n // bins for i in range(bins))
    if n % bins:
        places = x.run("arange", 0, 1, shape=(bins,)).unsqueeze(1)
        start, end = places * n // bins, ((places + 1) * n + (bins - 1)) // bins
        # A short bin repeats its last element, which changes no maximum.
        found = (start + x.run("arange", 0, 1, shape=(width,))).minimum(end - 1)
        x = x.index_select(axis, found.reshape(-1))
    return x.reshape(*x.shape[:axis], bins, width, *x.shape[axis + 1 :]).max(axis + 1)


class AdaptiveMaxPool1d(Module):
    """Largest element of each of ``output_size`` bins, those of AdaptiveAvgPool1d; equal ones share the gradient."""

    output_size: int

    def forward(self, x: Tensor[3]) -> Tensor[3]:
        """[batch, channels, l] -> [batch, channels, output_size]."""
        return _largest(x, 2, self.output_size)


class AdaptiveMaxPool1dConfig(Config):
    """Of an AdaptiveMaxPool1d layer."""

    output_size: int

    def init(self) -> AdaptiveMaxPool1d:
        """Return the layer; it has no parameters."""
        return AdaptiveMaxPool1d(output_size=self.output_size)


class AdaptiveMaxPool2d(Module):
    """Largest element of each of the bins that make up ``output_size``, those of AdaptiveAvgPool2d; equal ones share the
    gradient."""

    output_size: Pair

    def forward(self, x: Tensor[4]) -> Tensor[4]:
        """[batch, channels, h, w] -> [batch, channels, *output_size]."""
        return _largest(_largest(x, 3, self.output_size[1]), 2, self.output_size[0])


class AdaptiveMaxPool2dConfig(Config):
    """Of an AdaptiveMaxPool2d layer."""

    output_size: Pair = field(converter=pair)

    def init(self) -> AdaptiveMaxPool2d:
        """Return the layer; it has no parameters."""
        return AdaptiveMaxPool2d(output_size=self.output_size)


class MaxPool1d(Module):
    """Largest element of each window; padding never wins."""

    kernel_size: int
    stride: int
    padding: Pair  # (left, right)

    def forward(self, x: Tensor[3]) -> Tensor[3]:
        """[batch, channels, l] -> [batch, channels, l'] with l' = floor((l + pads - k) / stride) + 1."""
        return _along(x, "max_pool2d", self.kernel_size, self.stride, self.padding)


class MaxPool1dConfig(Config):
    """Of a MaxPool1d layer; the stride is the kernel's size unless it is given, and the padding is spelled as in
    Conv1dConfig."""

    kernel_size: int
    stride: int | None = None
    padding: Word | int | Pair = 0

    def init(self) -> MaxPool1d:
        """Return the layer; it has no parameters."""
        stride = self.kernel_size if self.stride is None else self.stride
        bare = self.padding if isinstance(self.padding, str) else (self.padding,)
        (padding,) = _sides("MaxPool1dConfig", bare, (self.kernel_size,), (stride,))
        return MaxPool1d(kernel_size=self.kernel_size, stride=stride, padding=padding)


class AvgPool1d(Module):
    """Mean of each window."""

    kernel_size: int
    stride: int
    padding: Pair  # (left, right)
    count_include_pad: bool

    def forward(self, x: Tensor[3]) -> Tensor[3]:
        """[batch, channels, l] -> [batch, channels, l'] with l' = floor((l + pads - k) / stride) + 1."""
        include = {"include_pad": self.count_include_pad}
        return _along(x, "avg_pool2d", self.kernel_size, self.stride, self.padding, **include)


class AvgPool1dConfig(Config):
    """Of an AvgPool1d layer; the stride is the kernel's size unless it is given, and the padding is spelled as in
    Conv1dConfig."""

    kernel_size: int
    stride: int | None = None
    padding: Word | int | Pair = 0
    count_include_pad: bool = True

    def init(self) -> AvgPool1d:
        """Return the layer; it has no parameters."""
        stride = self.kernel_size if self.stride is None else self.stride
        bare = self.padding if isinstance(self.padding, str) else (self.padding,)
        (padding,) = _sides("AvgPool1dConfig", bare, (self.kernel_size,), (stride,))
        include = self.count_include_pad
        return AvgPool1d(kernel_size=self.kernel_size, stride=stride, padding=padding, count_include_pad=include)


class MaxPool2d(Module):
    """Largest element of each window; padding never wins."""

    kernel_size: Pair
    strides: Pair
    padding: Pads  # ((top, bottom), (left, right))

    def forward(self, x: Tensor[4]) -> Tensor[4]:
        """[batch, channels, h, w] -> [batch, channels, h', w']."""
        return x.run("max_pool2d", x, kernel=self.kernel_size, stride=self.strides, padding=self.padding)


class MaxPool2dConfig(Config):
    """Of a MaxPool2d layer; the stride is the kernel's size unless it is given, and the padding is spelled as in
    Conv2dConfig."""

    kernel_size: Pair = field(converter=pair)
    strides: Pair | None = None
    padding: Word | Pair | Pads = (0, 0)

    def init(self) -> MaxPool2d:
        """Return the layer; it has no parameters."""
        strides = self.strides or self.kernel_size
        rows, columns = _sides("MaxPool2dConfig", self.padding, self.kernel_size, strides)
        return MaxPool2d(kernel_size=self.kernel_size, strides=strides, padding=(rows, columns))


class AvgPool2d(Module):
    """Mean of each window."""

    kernel_size: Pair
    strides: Pair
    padding: Pads  # ((top, bottom), (left, right))
    count_include_pad: bool

    def forward(self, x: Tensor[4]) -> Tensor[4]:
        """[batch, channels, h, w] -> [batch, channels, h', w']."""
        window = {"kernel": self.kernel_size, "stride": self.strides, "padding": self.padding}
        return x.run("avg_pool2d", x, include_pad=self.count_include_pad, **window)


class AvgPool2dConfig(Config):
    """Of an AvgPool2d layer; the stride is the kernel's size unless it is given, and the padding is spelled as in
    Conv2dConfig."""

    kernel_size: Pair = field(converter=pair)
    strides: Pair | None = None
    padding: Word | Pair | Pads = (0, 0)
    count_include_pad: bool = True

    def init(self) -> AvgPool2d:
        """Return the layer; it has no parameters."""
        strides = self.strides or self.kernel_size
        rows, columns = _sides("AvgPool2dConfig", self.padding, self.kernel_size, strides)
        return AvgPool2d(
            kernel_size=self.kernel_size,
            strides=strides,
            padding=(rows, columns),
            count_include_pad=self.count_include_pad,
        )
