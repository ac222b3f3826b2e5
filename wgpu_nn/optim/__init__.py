"""Optimizers: from gradients to better parameters."""

from wgpu_nn.optim.optimizer import Optimizer
from wgpu_nn.optim.optimizers import Adam, AdamConfig, AdamWConfig, Sgd, SgdConfig

__all__ = ["Adam", "AdamConfig", "AdamWConfig", "Optimizer", "Sgd", "SgdConfig"]
