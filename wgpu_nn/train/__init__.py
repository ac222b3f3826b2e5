"""Training: the loop over epochs, what it measures, shows, writes down, and resumes from."""

from wgpu_nn.train.capture import Captured, capture
from wgpu_nn.train.checkpoint import EpochRecord
from wgpu_nn.train.device_data import DeviceDataset
from wgpu_nn.train.device_loader import DeviceLoader
from wgpu_nn.train.log import read_log
from wgpu_nn.train.loop import Result, Trainer, holds_run, remove_run
from wgpu_nn.train.metrics import Metrics
from wgpu_nn.train.precision import LossScale, working_copy
from wgpu_nn.train.progress import Bar, Lines, Progress, Silent, Snapshot, progress
from wgpu_nn.train.step import Step, evaluate, testing_step, training_step

__all__ = [
    "Bar",
    "Captured",
    "DeviceDataset",
    "DeviceLoader",
    "EpochRecord",
    "Lines",
    "LossScale",
    "Metrics",
    "Progress",
    "Result",
    "Silent",
    "Snapshot",
    "Step",
    "Trainer",
    "capture",
    "evaluate",
    "holds_run",
    "progress",
    "read_log",
    "remove_run",
    "testing_step",
    "training_step",
    "working_copy",
]
