"""What configs of convolutions share: paddings as they are spelled, checks of sizes, and the first parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, cast

from wgpu_nn.errors import ConfigError, ShapeError
from wgpu_nn.nn.init import Initializer
from wgpu_nn.nn.module import Param
from wgpu_nn.shape import Shape
from wgpu_nn.tensor import Device, Tensor, default_device

Pair = tuple[int, int]
Triple = tuple[int, int, int]
Word = Literal["valid", "same"]  # no padding; or as much as keeps the size, with stride 1
Sides = Sequence[int | Pair]  # per axis: one size for both ends, or one for each


def triple(value: Sequence[int]) -> Triple:
    """Convert a list to a tuple; anything else is left as it is, for the field's own check to refuse by name."""
    return cast(Triple, tuple(value) if isinstance(value, list) else value)


def pads(config: str, padding: Word | Sides, kernel: Shape, stride: Shape, dilation: Shape) -> tuple[Pair, ...]:
    """Return the padding as (before, after) per axis; "same" puts an odd one out at the end."""
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        if max(stride) != 1:
            raise ConfigError(f'{config}.padding: "same" expects a stride of 1, got {stride}; give the padding')
        spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((span // 2, span - span // 2) for span in spans)
    found = tuple((side, side) if isinstance(side, int) else side for side in padding)
    if min(min(pair) for pair in found) < 0:
        raise ConfigError(f"{config}.padding: expected sizes of 0 or more, got {padding}; slice the input instead")
    return found


def check_extra(config: str, extra: Shape, stride: Shape, dilation: Shape) -> None:
    """Raise unless ``output_padding`` is less than the stride or the dilation: more would be elements that no input's
    size explains."""
    rows = zip(extra, stride, dilation, strict=True)
    if any(not 0 <= e < max(s, d) for e, s, d in rows):
        raise ConfigError(
            f"{config}.output_padding: expected 0 or more and less than the stride or the dilation on every axis, got "
            f"{extra} for stride {stride} and dilation {dilation}; pad the result instead"
        )


def parameters(
    config: str,
    channels: Pair,
    kernel: Shape,
    steps: Shape,
    groups: int,
    initializer: Initializer,
    bias: bool,
    device: Device | None,
    transposed: bool = False,
) -> tuple[Param, Param | None]:
    """Return a convolution's weight and bias, drawn on ``device``; ``steps`` are its strides and dilations.

    The weight is [out, in / groups, *kernel], transposed [in, out / groups, *kernel]; the fan-in is what one of its
    rows sums in a convolution, as in PyTorch for both.
    """
    into, out = channels
    if min(into, out, *kernel, *steps) < 1 or into % groups or out % groups:
        raise ConfigError(
            f"{config}: expected sizes of 1 or more and channels divisible by {groups} groups, got channels "
            f"{list(channels)}, kernel {list(kernel)}, strides and dilations {list(steps)}; change the groups?"
        )
    where = default_device() if device is None else device
    rows, columns = (into, out) if transposed else (out, into)
    window = math.prod(kernel)
    fans = (columns // groups * window, rows // groups * window)
    weight = Param(initializer.draw((rows, columns // groups, *kernel), *fans, where))
    return weight, Param(initializer.draw((out,), *fans, where)) if bias else None


def check_channels(op: str, x: Tensor, channels: int) -> None:
    """Raise unless axis 1 of ``x`` has the size that the layer's weight expects."""
    if x.shape[1] != channels:
        raise ShapeError(
            f"{op}: expected {channels} channels on axis 1, got an input {list(x.shape)}; is another layer meant?"
        )
