"""How like two images are: PSNR, SSIM and MS-SSIM, the mean over images; regions are in scores.py."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wgpu_nn.errors import ConfigError, ShapeError
from wgpu_nn.metrics.base import Better, Joins, Metric
from wgpu_nn.metrics.regression import number_pairs
from wgpu_nn.tensor import Tensor, tensor

WINDOW, SIGMA = 11, 1.5  # Wang et al. 2004, section III C
K1, K2 = 0.01, 0.03
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # the exponents of Wang et al. 2003, section 3.2


@dataclass(frozen=True, slots=True)
class PerImage(Metric):
    """The mean over images of one number each; outputs and targets [batch, channels, height, width] Float.

    ``range`` is the largest possible difference of two pixels: 1, or 255. NaN over nothing.
    """

    range: float = 1.0
    name: str = ""
    better: ClassVar[Better | None] = "higher"
    joins: ClassVar[Joins] = "concat"

    def __post_init__(self) -> None:
        if not self.range > 0:
            raise ConfigError(f"{self.name}: expected a range above 0, got {self.range}")

    @abc.abstractmethod
    def compare(self, x: Tensor, y: Tensor) -> Tensor:
        """[n, c, h, w], [n, c, h, w] with a range of 1 -> [n]."""

    def statistics(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        """Return a number for each image, [batch] Float."""
        x, y = number_pairs(self.name, outputs, targets)
        if x.rank != 4:
            raise ShapeError(f"{self.name}: expected images [batch, channels, height, width], got {list(x.shape)}")
        return (self.compare(*(z if self.range == 1.0 else z / self.range for z in (x, y))),)

    def value(self, *totals: np.ndarray) -> float:
        return float(totals[0].astype(np.float64).mean()) if totals[0].size else math.nan


@dataclass(frozen=True, slots=True)
class PSNR(PerImage):
    """10 log10(range² / mean squared error) of each image, in decibels; infinite for images that are equal."""

    name: str = "psnr"

    def compare(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).square().mean((1, 2, 3))

    def value(self, *totals: np.ndarray) -> float:
        if not totals[0].size:
            return math.nan
        with np.errstate(divide="ignore"):
            return float((-10 * np.log10(totals[0].astype(np.float64))).mean())


@dataclass(frozen=True, slots=True)
class SSIM(PerImage):
    """Structural similarity (Wang, Bovik, Sheikh and Simoncelli 2004), -1 to 1, the mean over pixels and channels.

    A Gaussian window of 11 x 11, sigma 1.5, where it lies within the image; K1 = 0.01, K2 = 0.03. Sides below 11 raise
    ShapeError.
    """

    name: str = "ssim"

    def compare(self, x: Tensor, y: Tensor) -> Tensor:
        _check_sides(self.name, x, WINDOW)
        similarity, _ = _similarity(x, y)
        return similarity.mean((1, 2, 3))


@dataclass(frozen=True, slots=True)
class MSSSIM(PerImage):
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik 2003): SSIM's terms over five halvings of the images.

    Images are halved by means of 2 x 2 pixels, an odd last row or column is left out. A scale whose mean contrast and
    structure is negative counts as 0. Sides below 176 raise ShapeError: the last scale needs a window.
    """

    name: str = "ms-ssim"

    def compare(self, x: Tensor, y: Tensor) -> Tensor:
        _check_sides(self.name, x, WINDOW * 2 ** (len(SCALES) - 1))
        product: Tensor | None = None
        for scale, exponent in enumerate(SCALES):
            similarity, contrast = _similarity(x, y)
            last = scale == len(SCALES) - 1
            factor = (similarity if last else contrast).mean((2, 3)).relu() ** exponent
            product = factor if product is None else product * factor
            if not last:
                x, y = (_halved(z) for z in (x, y))
        assert product is not None
        return product.mean(1)


def _similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return SSIM of each window, and its factor of contrast and structure, [n, c, h - 10, w - 10]."""
    mx, my = _blurred(x), _blurred(y)
    xx, yy, xy = mx * mx, my * my, mx * my
    vx, vy, cov = _blurred(x * x) - xx, _blurred(y * y) - yy, _blurred(x * y) - xy
    contrast = (cov * 2.0 + K2**2) / (vx + vy + K2**2)
    return (xy * 2.0 + K1**2) / (xx + yy + K1**2) * contrast, contrast


def _blurred(x: Tensor) -> Tensor:
    """Return Gaussian means over windows, down the columns and then along the rows."""
    n, c, h, w = x.shape
    away = np.arange(WINDOW) - (WINDOW - 1) / 2
    window = np.exp(-(away**2) / (2 * SIGMA**2))
    weight = tensor((window / window.sum()).astype(np.float32), x.device)
    still = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    planes = x.reshape(n * c, 1, h, w)
    down = planes.run("conv2d", planes, weight.reshape(1, 1, WINDOW, 1), **still)
    both = down.run("conv2d", down, weight.reshape(1, 1, 1, WINDOW), **still)
    return both.reshape(n, c, h - WINDOW + 1, w - WINDOW + 1)


def _halved(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    even = x.narrow(2, 0, h // 2 * 2).narrow(3, 0, w // 2 * 2)
    return even.reshape(n, c, h // 2, 2, w // 2, 2).mean((3, 5))


def _check_sides(name: str, x: Tensor, least: int) -> None:
    if min(x.shape[2:]) < least:
        raise ShapeError(
            f"{name}: expected images of at least {least} x {least} pixels, got {list(x.shape)}; scale them up?"
        )
