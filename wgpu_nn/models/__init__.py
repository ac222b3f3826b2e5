"""The model of the project's spec page."""

from wgpu_nn.models.cnn import Model, ModelConfig

__all__ = ["Model", "ModelConfig"]
