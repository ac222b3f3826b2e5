"""A small convolutional network for image classification: two convolutions, pooling, two linear layers."""

from __future__ import annotations

from pydantic import Field

from wgpu_nn.nn import (
    AdaptiveAvgPool2d,
    AdaptiveAvgPool2dConfig,
    Config,
    Conv2d,
    Conv2dConfig,
    Dropout,
    DropoutConfig,
    Linear,
    LinearConfig,
    Module,
    ReLU,
)
from wgpu_nn.tensor import Device, Tensor


class Model(Module):
    """Grey images to class scores."""

    conv1: Conv2d
    conv2: Conv2d
    pool: AdaptiveAvgPool2d
    dropout: Dropout
    linear1: Linear
    linear2: Linear
    activation: ReLU

    def forward(self, images: Tensor[3]) -> Tensor[2]:
        """[batch, height, width] -> [batch, num_classes]."""
        batch_size, height, width = images.dims
        x = images.reshape([batch_size, 1, height, width])  # a channel at the second dimension

        x = self.conv1.forward(x)  # [batch_size, 8, _, _]
        x = self.dropout.forward(x)
        x = self.conv2.forward(x)  # [batch_size, 16, _, _]
        x = self.dropout.forward(x)
        x = self.activation.forward(x)

        x = self.pool.forward(x)  # [batch_size, 16, 8, 8]
        x = x.reshape([batch_size, 16 * 8 * 8])
        x = self.linear1.forward(x)
        x = self.dropout.forward(x)
        x = self.activation.forward(x)

        return self.linear2.forward(x)  # [batch_size, num_classes]


class ModelConfig(Config):
    """Of the Model."""

    num_classes: int = Field(gt=0)
    hidden_size: int = Field(gt=0)
    dropout: float = Field(default=0.5, ge=0.0, le=1.0)

    def init(self, device: Device | None = None) -> Model:
        """Return the initialised model."""
        return Model(
            conv1=Conv2dConfig([1, 8], [3, 3]).init(device),
            conv2=Conv2dConfig([8, 16], [3, 3]).init(device),
            pool=AdaptiveAvgPool2dConfig([8, 8]).init(),
            activation=ReLU(),
            linear1=LinearConfig(16 * 8 * 8, self.hidden_size).init(device),
            linear2=LinearConfig(self.hidden_size, self.num_classes).init(device),
            dropout=DropoutConfig(self.dropout).init(),
        )
