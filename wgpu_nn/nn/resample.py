"""Layers that change the size of images without parameters: interpolation, and pixels traded for channels."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from wgpu_nn.dtype import Float, Int
from wgpu_nn.errors import ConfigError, ShapeError
from wgpu_nn.nn.config import Config
from wgpu_nn.nn.module import Module
from wgpu_nn.nn.window import Pair
from wgpu_nn.tensor import Tensor, tensor

Mode = Literal["nearest", "linear"]


def _size(op: str, n: int, size: int | None, factor: float | None) -> int:
    """Return an axis' new size: the one given, or floor(n factor)."""
    out = size if size is not None else math.floor(n * (factor or 0.0))
    if out < 1 or n < 1:
        raise ShapeError(f"{op}: expected sizes of 1 or more, got {n} elements to {out}; scale less")
    return out


def _resized(x: Tensor, axis: int, out: int, factor: float | None, mode: Mode, align: bool) -> Tensor:
    """Return ``x`` with ``out`` samples along ``axis``, as PyTorch places them."""
    n = x.shape[axis]
    step = n / out if factor is None else 1 / factor
    i = np.arange(out)
    if mode == "nearest":
        places = np.minimum((i * n // out) if factor is None else np.floor(i * step).astype(np.int64), n - 1)
        return x.index_select(axis, tensor(places, x.device, Int))
    at = i * ((n - 1) / max(out - 1, 1)) if align else np.maximum((i + 0.5) * step - 0.5, 0)
    low = np.minimum(np.floor(at).astype(np.int64), n - 1)
    share = np.clip(at - low, 0, 1).reshape([-1 if d == axis else 1 for d in range(x.rank)])
    before = x.index_select(axis, tensor(low, x.device, Int))
    after = x.index_select(axis, tensor(np.minimum(low + 1, n - 1), x.device, Int))
    both = before * tensor(1 - share, x.device, Float) + after * tensor(share, x.device, Float)
    return both.cast(x.dtype)


def _check(config: str, size: object, factor: object) -> None:
    if (size is None) == (factor is None):
        raise ConfigError(f"{config}: expected either output_size or scale_factor, got {size} and {factor}; give one")


class Interpolate1d(Module):
    """Samples between the elements of an axis: the nearest one, or those on both sides by their distance.

    Sample i of n lies at (i + 0.5) l / n - 0.5; with ``align_corners`` at i (l - 1) / (n - 1), so that the ends stay ends. The
    nearest one is element floor(i l / n), as in PyTorch.
    """

    output_size: int | None
    scale_factor: float | None
    mode: Mode
    align_corners: bool

    def forward(self, x: Tensor[3]) -> Tensor[3]:
        """[batch, channels, l] -> [batch, channels, output_size or floor(l scale_factor)]."""
        size = _size("interpolate1d", x.shape[2], self.output_size, self.scale_factor)
        return _resized(x, 2, size, self.scale_factor, self.mode, self.align_corners)


class Interpolate1dConfig(Config):
    """Of an Interpolate1d layer: either the new length, or the factor between the old one and it."""

    output_size: int | None = None
    scale_factor: float | None = None
    mode: Mode = "nearest"
    align_corners: bool = False

    def init(self) -> Interpolate1d:
        """Return the layer; it has no parameters."""
        _check("Interpolate1dConfig", self.output_size, self.scale_factor)
        return Interpolate1d(
            output_size=self.output_size,
            scale_factor=self.scale_factor,
            mode=self.mode,
            align_corners=self.align_corners,
        )


class Interpolate2d(Module):
    """Interpolate1d along columns and along rows; "linear" is what others call bilinear."""

    output_size: Pair | None
    scale_factor: tuple[float, float] | None
    mode: Mode
    align_corners: bool

    def forward(self, x: Tensor[4]) -> Tensor[4]:
        """[batch, channels, h, w] -> [batch, channels, *output_size], or floor(h factor) by floor(w factor)."""
        sizes, factors = self.output_size or (None, None), self.scale_factor or (None, None)
        for axis, size, factor in zip((2, 3), sizes, factors, strict=True):
            out = _size("interpolate2d", x.shape[axis], size, factor)
            x = _resized(x, axis, out, factor, self.mode, self.align_corners)
        return x


class Interpolate2dConfig(Config):
    """Of an Interpolate2d layer: either the new height and width, or the factors between the old ones and them."""

    output_size: Pair | None = None
    scale_factor: tuple[float, float] | None = None
    mode: Mode = "nearest"
    align_corners: bool = False

    def init(self) -> Interpolate2d:
        """Return the layer; it has no parameters."""
        _check("Interpolate2dConfig", self.output_size, self.scale_factor)
        return Interpolate2d(
            output_size=self.output_size,
            scale_factor=self.scale_factor,
            mode=self.mode,
            align_corners=self.align_corners,
        )


class PixelShuffle(Module):
    """Channels become pixels: out[n, c, h r + i, w r + j] = x[n, c r^2 + i r + j, h, w] (Shi et al. 2016)."""

    upscale_factor: int

    def forward(self, x: Tensor[4]) -> Tensor[4]:
        """[batch, channels r^2, h, w] -> [batch, channels, h r, w r]."""
        r, (n, c, h, w) = self.upscale_factor, x.shape
        if c % (r * r):
            raise ShapeError(
                f"pixel_shuffle: expected channels divisible by {r}^2, got {list(x.shape)}; change the factor"
            )
        apart = x.reshape(n, c // (r * r), r, r, h, w).permute(0, 1, 4, 2, 5, 3)
        return apart.reshape(n, c // (r * r), h * r, w * r)


class PixelShuffleConfig(Config):
    """Of a PixelShuffle layer."""

    upscale_factor: int

    def init(self) -> PixelShuffle:
        """Return the layer; it has no parameters."""
        if self.upscale_factor < 1:
            raise ConfigError(f"PixelShuffleConfig: expected a factor of 1 or more, got {self.upscale_factor}")
        return PixelShuffle(upscale_factor=self.upscale_factor)


class PixelUnshuffle(Module):
    """Pixels become channels: what PixelShuffle undoes."""

    downscale_factor: int

    def forward(self, x: Tensor[4]) -> Tensor[4]:
        """[batch, channels, h r, w r] -> [batch, channels r^2, h, w]."""
        r, (n, c, h, w) = self.downscale_factor, x.shape
        if h % r or w % r:
            raise ShapeError(
                f"pixel_unshuffle: expected a height and a width divisible by {r}, got {list(x.shape)}; crop it"
            )
        apart = x.reshape(n, c, h // r, r, w // r, r).permute(0, 1, 3, 5, 2, 4)
        return apart.reshape(n, c * r * r, h // r, w // r)


class PixelUnshuffleConfig(Config):
    """Of a PixelUnshuffle layer."""

    downscale_factor: int

    def init(self) -> PixelUnshuffle:
        """Return the layer; it has no parameters."""
        if self.downscale_factor < 1:
            raise ConfigError(f"PixelUnshuffleConfig: expected a factor of 1 or more, got {self.downscale_factor}")
        return PixelUnshuffle(downscale_factor=self.downscale_factor)
