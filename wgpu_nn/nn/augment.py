"""Augmentations: batches of images changed at random on their device while training, and left alone otherwise."""

from __future__ import annotations

import math

from pydantic import Field, model_validator

from wgpu_nn.dtype import Float
from wgpu_nn.errors import ConfigError, KindError, ShapeError
from wgpu_nn.nn.config import Config
from wgpu_nn.nn.module import Module
from wgpu_nn.tensor import Device, Tensor, arange, bernoulli, rand

Span = tuple[float, float]


def _planes(op: str, x: Tensor) -> Tensor:
    """Return images ``[n, ..., h, w]`` as planes ``[n, c, h, w]``."""
    if x.kind is not Float:
        raise KindError(f"{op}: expected Float images, got {x.kind} {list(x.shape)}; use .float() / 255.0")
    if x.rank < 3:
        raise ShapeError(f"{op}: expected Float images [n, ..., height, width], got {list(x.shape)}")
    return x.reshape([x.shape[0], math.prod(x.shape[1:-2]), *x.shape[-2:]])


def _active(x: Tensor) -> bool:
    return x.device.is_autodiff and x.size > 0


def _each(n: int, device: Device) -> Tensor:
    """Return a uniform number in [0, 1) for each image: ``[n, 1, 1]``; places in images need more than a half's bits."""
    return rand([n, 1, 1], device, device.backend.dtypes[Float])


def _between(low: float, high: float, n: int, device: Device) -> Tensor:
    return _each(n, device) * (high - low) + low


def _below(limit: int, n: int, device: Device) -> Tensor:
    """Return a whole number in 0 .. limit-1 for each image, as Float ``[n, 1, 1]``."""
    # minimum: the product can round up to the limit itself.
    return (_each(n, device) * float(limit)).floor().minimum(float(limit - 1))


def _axis(size: int, dim: int, device: Device) -> Tensor:
    """Return 0 .. size-1 along axis ``dim`` of ``[1, h, w]``, as Float."""
    return arange(size, device=device).float().reshape([size if d == dim else 1 for d in range(3)])


def _picked(planes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``[n, c, h, w]`` at whole ``rows`` and ``columns`` ``[n, a, b]`` -> ``[n, c, a, b]``; 0 outside of the image."""
    n, c, h, w = planes.shape
    inside = (rows >= 0.0) & (rows < float(h)) & (columns >= 0.0) & (columns < float(w))
    flat = (rows.clamp(0.0, h - 1.0) * float(w) + columns.clamp(0.0, w - 1.0)).int()
    a, b = flat.shape[1:]
    found = planes.reshape([n, c, h * w]).gather(2, flat.reshape([n, 1, a * b]).expand([n, c, a * b]))
    return inside.reshape([n, 1, a, b]).where(found.reshape([n, c, a, b]), 0.0)


class RandomFlip(Module):
    """Turns each image over with probability ``prob``, left to right, or upside down if ``vertical``."""

    prob: float
    vertical: bool

    def forward(self, x: Tensor) -> Tensor:
        """[n, ..., height, width] -> the same."""
        planes = _planes("random_flip", x)
        if not _active(x):
            return x
        turned = bernoulli([x.shape[0], 1, 1, 1], self.prob, x.device)
        return turned.where(planes.flip(2 if self.vertical else 3), planes).reshape(x.shape)


class RandomFlipConfig(Config):
    """Of a RandomFlip."""

    prob: float = Field(default=0.5, ge=0.0, le=1.0)
    vertical: bool = False

    def init(self) -> RandomFlip:
        """Return the augmentation."""
        return RandomFlip(prob=self.prob, vertical=self.vertical)


class RandomCrop(Module):
    """Puts ``padding`` zeros around each image and cuts a part of its size out at random: a shift by that much at most."""

    padding: int

    def forward(self, x: Tensor) -> Tensor:
        """[n, ..., height, width] -> the same."""
        planes = _planes("random_crop", x)
        if not _active(x) or self.padding == 0:
            return x
        n, _, h, w = planes.shape
        down, across = (_below(2 * self.padding + 1, n, x.device) - float(self.padding) for _ in range(2))
        rows = (_axis(h, 1, x.device) + down).expand([n, h, w])
        columns = (_axis(w, 2, x.device) + across).expand([n, h, w])
        return _picked(planes, rows, columns).reshape(x.shape)


class RandomCropConfig(Config):
    """Of a RandomCrop; 4 is usual for images of 32 x 32."""

    padding: int = Field(ge=0)

    def init(self) -> RandomCrop:
        """Return the augmentation."""
        return RandomCrop(padding=self.padding)


class RandomErase(Module):
    """Sets a rectangle of each image to ``value`` with probability ``prob`` (Zhong et al. 2020; Cutout, DeVries 2017).

    Its height and width are drawn between the two parts of ``scale`` of the image's own, each for itself; it lies within.
    """

    prob: float
    scale: Span
    value: float

    def forward(self, x: Tensor) -> Tensor:
        """[n, ..., height, width] -> the same."""
        planes = _planes("random_erase", x)
        if not _active(x):
            return x
        n, _, h, w = planes.shape
        spans: list[Tensor] = []
        for size, dim in ((h, 1), (w, 2)):
            length = (_between(*self.scale, n, x.device) * float(size)).round()
            start = (_each(n, x.device) * (float(size) - length + 1.0)).floor().minimum(float(size) - length)
            place = _axis(size, dim, x.device)
            spans.append((place >= start) & (place < start + length))
        erased = spans[0] & spans[1] & bernoulli([n, 1, 1], self.prob, x.device)
        return erased.unsqueeze(1).where(self.value, planes).reshape(x.shape)


class RandomEraseConfig(Config):
    """Of a RandomErase; ``scale`` is a part of each side, 0 to 1."""

    prob: float = Field(default=0.5, ge=0.0, le=1.0)
    scale: Span = (0.1, 0.4)
    value: float = 0.0

    @model_validator(mode="after")
    def _check(self) -> RandomEraseConfig:
        _check_span("RandomEraseConfig.scale", self.scale, 0.0, 1.0)
        return self

    def init(self) -> RandomErase:
        """Return the augmentation."""
        return RandomErase(prob=self.prob, scale=self.scale, value=self.value)


class RandomBrightness(Module):
    """Makes each image, of values in 0..1, brighter or darker, and its contrast higher or lower, then clips it to 0..1.

    out = mean + (x b - mean) c, where b is in 1 - brightness .. 1 + brightness, c likewise in contrast, and mean is that of
    x b over the image.
    """

    brightness: float
    contrast: float

    def forward(self, x: Tensor) -> Tensor:
        """[n, ..., height, width] -> the same."""
        planes = _planes("random_brightness", x)
        if not _active(x):
            return x
        n = planes.shape[0]
        b, c = (_between(1.0 - f, 1.0 + f, n, x.device).unsqueeze(1) for f in (self.brightness, self.contrast))
        lit = planes * b
        mean = lit.mean([1, 2, 3], keepdim=True)
        return (mean + (lit - mean) * c).clamp(0.0, 1.0).cast(x.dtype).reshape(x.shape)


class RandomBrightnessConfig(Config):
    """Of a RandomBrightness."""

    brightness: float = Field(default=0.2, ge=0.0, le=1.0)
    contrast: float = Field(default=0.2, ge=0.0, le=1.0)

    def init(self) -> RandomBrightness:
        """Return the augmentation."""
        return RandomBrightness(brightness=self.brightness, contrast=self.contrast)


class RandomAffine(Module):
    """Rotates each image about its middle by up to ``degrees`` either way, scales it by a factor in ``scale``, and shifts it by
    up to ``translate`` parts of its height and width. Sampled bilinearly, with zeros from outside of the image.
    """

    degrees: float
    translate: Span
    scale: Span

    def forward(self, x: Tensor) -> Tensor:
        """[n, ..., height, width] -> the same."""
        planes = _planes("random_affine", x)
        if not _active(x):
            return x
        n, _, h, w = planes.shape
        angle = _between(-math.radians(self.degrees), math.radians(self.degrees), n, x.device)
        factor = _between(*self.scale, n, x.device).recip()
        down, across = (
            _between(-part * size, part * size, n, x.device) for part, size in zip(self.translate, (h, w), strict=True)
        )
        middle = (h - 1) / 2, (w - 1) / 2
        # Where each pixel of the result comes from: the map backwards.
        i = _axis(h, 1, x.device) - middle[0] - down
        j = _axis(w, 2, x.device) - middle[1] - across
        sine, cosine = angle.sin() * factor, angle.cos() * factor
        rows = i * cosine + j * sine + middle[0]
        columns = j * cosine - i * sine + middle[1]
        top, left = rows.floor(), columns.floor()
        lower, right = rows - top, columns - left
        mixed = _picked(planes, top, left) * ((1.0 - lower) * (1.0 - right)).unsqueeze(1)
        mixed = mixed + _picked(planes, top, left + 1.0) * ((1.0 - lower) * right).unsqueeze(1)
        mixed = mixed + _picked(planes, top + 1.0, left) * (lower * (1.0 - right)).unsqueeze(1)
        mixed = mixed + _picked(planes, top + 1.0, left + 1.0) * (lower * right).unsqueeze(1)
        return mixed.cast(x.dtype).reshape(x.shape)


class RandomAffineConfig(Config):
    """Of a RandomAffine; ``translate`` is a part of the height and of the width, 0 to 1."""

    degrees: float = Field(default=10.0, ge=0.0, le=180.0)
    translate: Span = (0.1, 0.1)
    scale: Span = (0.9, 1.1)

    @model_validator(mode="after")
    def _check(self) -> RandomAffineConfig:
        if min(self.translate) < 0 or max(self.translate) > 1:
            raise ConfigError(f"RandomAffineConfig.translate: expected parts in 0..1, got {self.translate}")
        _check_span("RandomAffineConfig.scale", self.scale, 1e-3, 1e3)
        return self

    def init(self) -> RandomAffine:
        """Return the augmentation."""
        return RandomAffine(degrees=self.degrees, translate=self.translate, scale=self.scale)


def _check_span(name: str, span: Span, low: float, high: float) -> None:
    if not low <= span[0] <= span[1] <= high:
        raise ConfigError(f"{name}: expected two numbers in {low:g}..{high:g}, the smaller first, got {span}")


def _check_shares(op: str, x: Tensor, targets: Tensor) -> None:
    if targets.kind is not Float or targets.rank != 2:
        raise KindError(
            f"{op}: expected targets as shares of classes, Float [n, classes], got {targets.kind} "
            f"{list(targets.shape)}; use targets.one_hot(classes).float()"
        )
    if targets.shape[0] != x.shape[0]:
        raise ShapeError(f"{op}: expected targets for {x.shape[0]} images, got {targets.shape[0]}")


class Mixup(Module):
    """Mixes each image and its target with those of another image of the batch, in shares l and 1 - l (Zhang et al. 2018).

    l is uniform in 0..1 for each image (the paper's alpha of 1). The other image is the one at the same place from the end:
    in a shuffled batch that is a random one.
    """

    prob: float

    def forward(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """[n, ..., height, width], shares of classes [n, classes] -> the same."""
        planes = _planes("mixup", x)
        _check_shares("mixup", x, targets)
        if not _active(x):
            return x, targets
        n = planes.shape[0]
        own = bernoulli([n, 1, 1], self.prob, x.device).where(_each(n, x.device), 1.0)
        share = own.reshape([n, 1])
        image = own.unsqueeze(1)
        mixed = planes * image + planes.flip(0) * (1.0 - image)
        shares = targets * share + targets.flip(0) * (1.0 - share)
        return mixed.cast(x.dtype).reshape(x.shape), shares.cast(targets.dtype)


class MixupConfig(Config):
    """Of a Mixup; ``prob`` is the probability that an image is mixed at all."""

    prob: float = Field(default=1.0, ge=0.0, le=1.0)

    def init(self) -> Mixup:
        """Return the augmentation."""
        return Mixup(prob=self.prob)


class CutMix(Module):
    """Puts a rectangle of another image of the batch into each, and mixes the targets by their areas (Yun et al. 2019).

    The rectangle's part of the area is uniform in 0..1 before it is cut off at the edges; targets have what is left of it. The
    other image is the one at the same place from the end.
    """

    prob: float

    def forward(self, x: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """[n, ..., height, width], shares of classes [n, classes] -> the same."""
        planes = _planes("cutmix", x)
        _check_shares("cutmix", x, targets)
        if not _active(x):
            return x, targets
        n, _, h, w = planes.shape
        side = _each(n, x.device).sqrt()
        spans: list[Tensor] = []
        for size, dim in ((h, 1), (w, 2)):
            half = (side * float(size) * 0.5).round()
            centre = _below(size, n, x.device)
            place = _axis(size, dim, x.device)
            spans.append((place >= centre - half) & (place < centre + half))
        foreign = spans[0] & spans[1] & bernoulli([n, 1, 1], self.prob, x.device)
        share = foreign.float().mean([1, 2], keepdim=True).reshape([n, 1])
        mixed = foreign.unsqueeze(1).where(planes.flip(0), planes)
        shares = targets * (1.0 - share) + targets.flip(0) * share
        return mixed.reshape(x.shape), shares.cast(targets.dtype)


class CutMixConfig(Config):
    """Of a CutMix; ``prob`` is the probability that an image is mixed at all."""

    prob: float = Field(default=1.0, ge=0.0, le=1.0)

    def init(self) -> CutMix:
        """Return the augmentation."""
        return CutMix(prob=self.prob)
