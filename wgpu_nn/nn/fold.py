"""Unfold4d and Fold4d: the windows of a convolution laid out as columns, and columns added up to an image again."""

from __future__ import annotations

import numpy as np

from wgpu_nn.dtype import Int
from wgpu_nn.errors import ConfigError, ShapeError
from wgpu_nn.nn.config import Config, field, pair
from wgpu_nn.nn.module import Module
from wgpu_nn.nn.window import Pair
from wgpu_nn.shape import window_count
from wgpu_nn.tensor import Tensor, tensor


def _places(x: Tensor, kernel: int, stride: int, dilation: int, count: int) -> Tensor:
    """Return where the element under each weight lies in each window: [kernel * count], padding included."""
    places = np.arange(kernel)[:, None] * dilation + np.arange(count) * stride
    return tensor(places.ravel(), x.device, Int)


class Unfold4d(Module):
    """Column l of the result is window l, channel by channel, row by row; windows are counted row by row."""

    kernel_size: Pair
    stride: Pair
    dilation: Pair
    padding: Pair

    def forward(self, x: Tensor[4]) -> Tensor[3]:
        """[batch, channels, h, w] -> [batch, channels kh kw, windows]."""
        (n, c, h, w), (top, left), (kh, kw) = x.shape, self.padding, self.kernel_size
        oh = window_count("unfold4d", h, kh, self.stride[0], (top, top), self.dilation[0])
        ow = window_count("unfold4d", w, kw, self.stride[1], (left, left), self.dilation[1])
        if top or left:
            frame = x.run("full", 0.0, shape=(n, c, h + 2 * top, w + 2 * left), dtype=x.dtype)
            x = frame.slice_assign(((0, 1, n), (0, 1, c), (top, 1, h), (left, 1, w)), x)
        x = x.index_select(2, _places(x, kh, self.stride[0], self.dilation[0], oh))
        x = x.index_select(3, _places(x, kw, self.stride[1], self.dilation[1], ow))
        return x.reshape(n, c, kh, oh, kw, ow).permute(0, 1, 2, 4, 3, 5).reshape(n, c * kh * kw, oh * ow)


class Unfold4dConfig(Config):
    """Of an Unfold4d layer."""

    kernel_size: Pair = field(converter=pair)
    stride: Pair = field(default=(1, 1), converter=pair)
    dilation: Pair = field(default=(1, 1), converter=pair)
    padding: Pair = field(default=(0, 0), converter=pair)

    def init(self) -> Unfold4d:
        """Return the layer; it has no parameters."""
        _check("Unfold4dConfig", self.kernel_size + self.stride + self.dilation, self.padding)
        return Unfold4d(kernel_size=self.kernel_size, stride=self.stride, dilation=self.dilation, padding=self.padding)


class Fold4d(Module):
    """Adds up the columns that Unfold4d makes, each element where it was: its transpose, not its inverse."""

    output_size: Pair
    kernel_size: Pair
    stride: Pair
    dilation: Pair
    padding: Pair

    def forward(self, x: Tensor[3]) -> Tensor[4]:
        """[batch, channels kh kw, windows] -> [batch, channels, *output_size]."""
        (n, columns, windows), (kh, kw), (h, w) = x.shape, self.kernel_size, self.output_size
        (top, left), taps = self.padding, kh * kw
        oh = window_count("fold4d", h, kh, self.stride[0], (top, top), self.dilation[0])
        ow = window_count("fold4d", w, kw, self.stride[1], (left, left), self.dilation[1])
        if columns % taps or windows != oh * ow:
            raise ShapeError(
                f"fold4d: expected [batch, channels x {taps}, {oh * ow}] for an image of {h} by {w}, got {list(x.shape)}"
            )
        c = columns // taps
        apart = x.reshape(n, c, kh, kw, oh, ow).permute(0, 1, 2, 4, 3, 5).reshape(n, c, kh * oh, kw * ow)
        rows = _added(apart, 2, _places(x, kh, self.stride[0], self.dilation[0], oh), h + 2 * top)
        both = _added(rows, 3, _places(x, kw, self.stride[1], self.dilation[1], ow), w + 2 * left)
        return both.narrow(2, top, h).narrow(3, left, w)


def _added(x: Tensor, axis: int, places: Tensor, size: int) -> Tensor:
    """Return ``x`` added up along ``axis`` into ``size`` elements, in a fixed order."""
    shape = [size if d == axis else n for d, n in enumerate(x.shape)]
    index = places.reshape([-1 if d == axis else 1 for d in range(x.rank)]).expand(x.shape)
    return x.run("full", 0.0, shape=tuple(shape), dtype=x.dtype).scatter_add(axis, index, x)


class Fold4dConfig(Config):
    """Of a Fold4d layer; all but the output's size are those of the Unfold4d that it transposes."""

    output_size: Pair = field(converter=pair)
    kernel_size: Pair = field(converter=pair)
    stride: Pair = field(default=(1, 1), converter=pair)
    dilation: Pair = field(default=(1, 1), converter=pair)
    padding: Pair = field(default=(0, 0), converter=pair)

    def init(self) -> Fold4d:
        """Return the layer; it has no parameters."""
        sizes = self.output_size + self.kernel_size + self.stride + self.dilation
        _check("Fold4dConfig", sizes, self.padding)
        return Fold4d(
            output_size=self.output_size,
            kernel_size=self.kernel_size,
            stride=self.stride,
            dilation=self.dilation,
            padding=self.padding,
        )


def _check(config: str, sizes: tuple[int, ...], padding: Pair) -> None:
    if min(sizes) < 1 or min(padding) < 0:
        raise ConfigError(
            f"{config}: expected sizes of 1 or more and paddings of 0 or more, got {list(sizes)} and {list(padding)}"
        )
