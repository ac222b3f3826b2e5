"""Layers and losses, each a Module, and the configs that make them."""

from wgpu_nn.nn.activation import Gelu, ReLU, Sigmoid, Tanh
from wgpu_nn.nn.attention import (
    MultiHeadAttention,
    MultiHeadAttentionConfig,
    generate_autoregressive_mask,
    scaled_dot_product_attention,
)
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
    "Config",
    "Constant",
    "Conv2d",
    "Conv2dConfig",
    "CrossEntropyLoss",
    "CrossEntropyLossConfig",
    "Dropout",
    "DropoutConfig",
    "Gelu",
    "Initializer",
    "KaimingNormal",
    "KaimingUniform",
    "Linear",
    "LinearConfig",
    "MaxPool2d",
    "MaxPool2dConfig",
    "Module",
    "MseLoss",
    "MseLossConfig",
    "MultiHeadAttention",
    "MultiHeadAttentionConfig",
    "Normal",
    "Param",
    "ReLU",
    "Sigmoid",
    "Tanh",
    "Uniform",
    "XavierNormal",
    "XavierUniform",
    "field",
    "generate_autoregressive_mask",
    "pair",
    "scaled_dot_product_attention",
]
