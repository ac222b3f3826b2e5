"""Normalisation layers: by the statistics of a batch, of groups of channels, or of each row."""

from __future__ import annotations

from pydantic import Field

from wgpu_nn.errors import ConfigError, ShapeError
from wgpu_nn.nn.config import Config
from wgpu_nn.nn.module import Module, Param
from wgpu_nn.shape import size
from wgpu_nn.tensor import Device, Tensor, default_device, ones, zeros


def _columns(op: str, x: Tensor, channels: int) -> tuple[int, ...]:
    """Return the shape under which a number per channel broadcasts against ``x``, which is [batch, channels, ...]."""
    if x.rank < 2 or x.shape[1] != channels:
        raise ShapeError(f"{op}: expected an input [batch, {channels}, ...], got {list(x.shape)}")
    return (channels, *(1 for _ in x.shape[2:]))


class BatchNorm(Module):
    """(x - mean) / sqrt(var + epsilon) gamma + beta, per channel of [batch, channels, ...] (Ioffe and Szegedy 2015).

    On autodiff devices mean and variance are the batch's, and running ones follow them: running = (1 - momentum) running +
    momentum batch, with the unbiased variance. Elsewhere, as after ``valid()``, the running ones are used. They are saved
    with the parameters, and are state of captured steps as these are.
    """

    gamma: Param
    beta: Param
    running_mean: Param
    running_var: Param
    momentum: float
    epsilon: float

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, ...] -> [batch, channels, ...], with any number of axes after the channels'."""
        column = _columns("batch_norm", x, self.gamma.shape[0])
        if not x.device.is_autodiff:
            scale = (self.running_var.value + self.epsilon).rsqrt() * self.gamma.value
            centred = x - self.running_mean.value.reshape(*column)
            return (centred * scale.reshape(*column) + self.beta.value.reshape(*column)).cast(x.dtype)
        var, mean = self._observed(x)
        scale = (var + self.epsilon).rsqrt() * self.gamma.value
        # The difference is 0, and takes the mean's gradient to where numbers are per channel: through ``centred`` it would be
        # another sum over the whole batch.
        known = mean.detach()
        shift = self.beta.value - (mean - known) * scale
        return ((x - known.reshape(*column)) * scale.reshape(*column) + shift.reshape(*column)).cast(x.dtype)

    def _observed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch's variance and mean, and let the running ones follow."""
        axes = [0, *range(2, x.rank)]
        n = size(tuple(x.shape[a] for a in axes))
        if n < 2:
            raise ShapeError(
                f"batch_norm: expected more than one element per channel in training, got {list(x.shape)}; "
                "use larger batches, or model.valid()"
            )
        var, mean = x.var_mean(axes, correction=0)
        unbiased = var.detach() * (n / (n - 1))
        for running, batch in ((self.running_mean, mean.detach()), (self.running_var, unbiased)):
            running.value = running.value * (1.0 - self.momentum) + batch * self.momentum
        return var, mean

    def extra(self) -> str:
        return f"{self.gamma.shape[0]}, momentum={self.momentum}, epsilon={self.epsilon}"


class BatchNormConfig(Config):
    """Of a BatchNorm layer, for inputs of any rank from 2 on."""

    num_features: int = Field(gt=0)
    epsilon: float = Field(default=1e-5, gt=0)
    momentum: float = Field(default=0.1, ge=0, le=1)

    def init(self, device: Device | None = None) -> BatchNorm:
        """Return the layer on ``device``: gamma and the running variance are 1, beta and the running mean 0."""
        where, shape = default_device() if device is None else device, (self.num_features,)
        return BatchNorm(
            gamma=Param(ones(shape, where)),
            beta=Param(zeros(shape, where)),
            running_mean=Param(zeros(shape, where), trainable=False),
            running_var=Param(ones(shape, where), trainable=False),
            momentum=self.momentum,
            epsilon=self.epsilon,
        )


class LayerNorm(Module):
    """(x - mean) / sqrt(var + epsilon) gamma + beta along the last axis (Ba, Kiros and Hinton 2016)."""

    gamma: Param
    beta: Param | None
    epsilon: float

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_model] -> [..., d_model]."""
        return x.layer_norm(self.gamma.value, None if self.beta is None else self.beta.value, self.epsilon)

    def extra(self) -> str:
        return f"{self.gamma.shape[0]}, epsilon={self.epsilon}, bias={self.beta is not None}"


class LayerNormConfig(Config):
    """Of a LayerNorm layer."""

    d_model: int = Field(gt=0)
    epsilon: float = Field(default=1e-5, gt=0)
    bias: bool = True

    def init(self, device: Device | None = None) -> LayerNorm:
        """Return the layer on ``device``: gamma is 1, beta 0."""
        where, shape = default_device() if device is None else device, (self.d_model,)
        beta = Param(zeros(shape, where)) if self.bias else None
        return LayerNorm(gamma=Param(ones(shape, where)), beta=beta, epsilon=self.epsilon)


class RmsNorm(Module):
    """x / sqrt(mean(x^2) + epsilon) gamma along the last axis (Zhang and Sennrich 2019)."""

    gamma: Param
    epsilon: float

    def forward(self, x: Tensor) -> Tensor:
        """[..., d_model] -> [..., d_model]."""
        return x.rms_norm(self.gamma.value, self.epsilon)

    def extra(self) -> str:
        return f"{self.gamma.shape[0]}, epsilon={self.epsilon}"


class RmsNormConfig(Config):
    """Of an RmsNorm layer."""

    d_model: int = Field(gt=0)
    epsilon: float = Field(default=1e-5, gt=0)

    def init(self, device: Device | None = None) -> RmsNorm:
        """Return the layer on ``device``: gamma is 1."""
        where = default_device() if device is None else device
        return RmsNorm(gamma=Param(ones((self.d_model,), where)), epsilon=self.epsilon)


class GroupNorm(Module):
    """Each group of channels of each item less its mean, over its deviation; times gamma, plus beta per channel (Wu and
    He 2018)."""

    gamma: Param | None
    beta: Param | None
    num_groups: int
    num_channels: int
    epsilon: float

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, ...] -> [batch, channels, ...]."""
        column = _columns("group_norm", x, self.num_channels)
        groups = x.reshape(x.shape[0], self.num_groups, self.num_channels // self.num_groups * size(x.shape[2:]))
        out = groups.layer_norm(epsilon=self.epsilon).reshape(*x.shape)
        if self.gamma is None or self.beta is None:
            return out
        return out * self.gamma.value.reshape(*column) + self.beta.value.reshape(*column)

    def extra(self) -> str:
        affine = self.gamma is not None
        return f"{self.num_channels} in {self.num_groups} groups, epsilon={self.epsilon}, affine={affine}"


class GroupNormConfig(Config):
    """Of a GroupNorm layer; ``affine`` says whether it has gamma and beta."""

    num_groups: int = Field(gt=0)
    num_channels: int = Field(gt=0)
    epsilon: float = Field(default=1e-5, gt=0)
    affine: bool = True

    def init(self, device: Device | None = None) -> GroupNorm:
        """Return the layer on ``device``: gamma is 1, beta 0."""
        if self.num_channels % self.num_groups:
            raise ConfigError(
                f"GroupNormConfig: expected channels divisible by the groups, got {self.num_channels} in "
                f"{self.num_groups}; change one of them"
            )
        where, shape = default_device() if device is None else device, (self.num_channels,)
        gamma, beta = (Param(make(shape, where)) if self.affine else None for make in (ones, zeros))
        return GroupNorm(gamma, beta, self.num_groups, self.num_channels, self.epsilon)


class InstanceNorm(GroupNorm):
    """A GroupNorm with a group for each channel (Ulyanov, Vedaldi and Lempitsky 2016)."""


class InstanceNormConfig(Config):
    """Of an InstanceNorm layer; ``affine`` says whether it has gamma and beta."""

    num_channels: int = Field(gt=0)
    epsilon: float = Field(default=1e-5, gt=0)
    affine: bool = True

    def init(self, device: Device | None = None) -> InstanceNorm:
        """Return the layer on ``device``: gamma is 1, beta 0."""
        where, shape = default_device() if device is None else device, (self.num_channels,)
        gamma, beta = (Param(make(shape, where)) if self.affine else None for make in (ones, zeros))
        return InstanceNorm(gamma, beta, self.num_channels, self.num_channels, self.epsilon)
