"""A multilayer perceptron for rows of numbers: linear layers with ReLU and dropout between them."""

from __future__ import annotations

from itertools import pairwise

from pydantic import Field

from wgpu_nn.nn import Config, Dropout, DropoutConfig, Linear, LinearConfig, Module, ReLU
from wgpu_nn.tensor import Device, Tensor


class Mlp(Module):
    """Rows of features to class scores, or to numbers."""

    layers: list[Linear]
    dropout: Dropout
    activation: ReLU

    def forward(self, rows: Tensor) -> Tensor:
        """[batch, ...] -> [batch, outputs]; what is beyond the first axis is flattened."""
        x = rows if rows.rank == 2 else rows.flatten(1)
        for layer in self.layers[:-1]:
            x = self.dropout.forward(self.activation.forward(layer.forward(x)))
        return self.layers[-1].forward(x)


class MlpConfig(Config):
    """Of an Mlp."""

    inputs: int = Field(gt=0, description="features of a row")
    outputs: int = Field(gt=0, description="classes, or numbers to predict")
    hidden: tuple[int, ...] = Field(default=(64, 64), description="sizes of the hidden layers")
    dropout: float = Field(default=0.0, ge=0.0, le=1.0, description="share of hidden values that training drops")

    def init(self, device: Device | None = None) -> Mlp:
        """Return the initialised model."""
        sizes = pairwise([self.inputs, *self.hidden, self.outputs])
        return Mlp(
            layers=[LinearConfig(before, after).init(device) for before, after in sizes],
            dropout=DropoutConfig(self.dropout).init(),
            activation=ReLU(),
        )
