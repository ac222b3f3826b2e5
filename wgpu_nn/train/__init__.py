"""Training: Learner and its loop over epochs; what it measures, shows, writes down, and resumes from; capture."""

from wgpu_nn.train.callbacks import Callback, EarlyStopping
from wgpu_nn.train.capture import Captured, capture
from wgpu_nn.train.device_data import DeviceDataset
from wgpu_nn.train.device_loader import DeviceLoader
from wgpu_nn.train.folder import holds_run, remove_run
from wgpu_nn.train.history import EpochRecord
from wgpu_nn.train.learner import Learner
from wgpu_nn.train.log import read_log
from wgpu_nn.train.loggers import CsvLogger, TensorBoardLogger
from wgpu_nn.train.precision import LossScale, working_copy
from wgpu_nn.train.progress import Lines, Progress, Silent, Snapshot, progress
from wgpu_nn.train.session import Result, Session
from wgpu_nn.train.step import Batch, Output, StepFunction

__all__ = [
    "Batch",
    "Callback",
    "Captured",
    "CsvLogger",
    "DeviceDataset",
    "DeviceLoader",
    "EarlyStopping",
    "EpochRecord",
    "Learner",
    "Lines",
    "LossScale",
    "Output",
    "Progress",
    "Result",
    "Session",
    "Silent",
    "Snapshot",
    "StepFunction",
    "TensorBoardLogger",
    "capture",
    "holds_run",
    "progress",
    "read_log",
    "remove_run",
    "working_copy",
]
