"""Optimizers and schedules: from gradients to better parameters, at which rate."""

from wgpu_nn.optim.optimizer import Optimizer
from wgpu_nn.optim.optimizers import Adam, AdamConfig, AdamWConfig, Sgd, SgdConfig
from wgpu_nn.optim.schedule import (
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    LinearSchedule,
    NoamSchedule,
    OneCycleSchedule,
    PlateauSchedule,
    Schedule,
    StepSchedule,
    average,
    product,
    sequential,
)

__all__ = [
    "Adam",
    "AdamConfig",
    "AdamWConfig",
    "ConstantSchedule",
    "CosineSchedule",
    "ExponentialSchedule",
    "LinearSchedule",
    "NoamSchedule",
    "OneCycleSchedule",
    "Optimizer",
    "PlateauSchedule",
    "Schedule",
    "Sgd",
    "SgdConfig",
    "StepSchedule",
    "average",
    "product",
    "sequential",
]
