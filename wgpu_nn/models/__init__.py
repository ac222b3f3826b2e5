"""Models that are ready to use: a small network for images, one for rows of numbers."""

from wgpu_nn.models.cnn import Model, ModelConfig
from wgpu_nn.models.mlp import Mlp, MlpConfig

__all__ = ["Mlp", "MlpConfig", "Model", "ModelConfig"]
