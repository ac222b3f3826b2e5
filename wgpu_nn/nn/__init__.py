"""Layers and losses, each a Module, and the configs that make them."""

from wgpu_nn.nn.activation import Gelu, ReLU, Sigmoid, Tanh
from wgpu_nn.nn.config import Config, field, pair
from wgpu_nn.nn.conv import Conv2d, Conv2dConfig
from wgpu_nn.nn.dropout import Dropout, DropoutConfig
from wgpu_nn.nn.init import (
    Constant,
    Initializer,
    KaimingNormal,
    KaimingUniform,
    Normal,
    Uniform,
    XavierNormal,
    XavierUniform,
)
from wgpu_nn.nn.linear import Linear, LinearConfig
from wgpu_nn.nn.loss import CrossEntropyLoss, CrossEntropyLossConfig, MseLoss, MseLossConfig
from wgpu_nn.nn.module import Module, Param
from wgpu_nn.nn.norm import (
    BatchNorm,
    BatchNormConfig,
    GroupNorm,
    GroupNormConfig,
    InstanceNorm,
    InstanceNormConfig,
    LayerNorm,
    LayerNormConfig,
    RmsNorm,
    RmsNormConfig,
)
from wgpu_nn.nn.pool import (
    AdaptiveAvgPool2d,
    AdaptiveAvgPool2dConfig,
    AvgPool2d,
    AvgPool2dConfig,
    MaxPool2d,
    MaxPool2dConfig,
)

__all__ = [
    "AdaptiveAvgPool2d",
    "AdaptiveAvgPool2dConfig",
    "AvgPool2d",
    "AvgPool2dConfig",
    "BatchNorm",
    "BatchNormConfig",
    "Config",
    "Constant",
    "Conv2d",
    "Conv2dConfig",
    "CrossEntropyLoss",
    "CrossEntropyLossConfig",
    "Dropout",
    "DropoutConfig",
    "Gelu",
    "GroupNorm",
    "GroupNormConfig",
    "Initializer",
    "InstanceNorm",
    "InstanceNormConfig",
    "KaimingNormal",
    "KaimingUniform",
    "LayerNorm",
    "LayerNormConfig",
    "Linear",
    "LinearConfig",
    "MaxPool2d",
    "MaxPool2dConfig",
    "Module",
    "MseLoss",
    "MseLossConfig",
    "Normal",
    "Param",
    "ReLU",
    "RmsNorm",
    "RmsNormConfig",
    "Sigmoid",
    "Tanh",
    "Uniform",
    "XavierNormal",
    "XavierUniform",
    "field",
    "pair",
]
