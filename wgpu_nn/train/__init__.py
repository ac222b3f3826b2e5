"""Training: Learner and its loop over epochs; what it measures, shows, writes down, and resumes from; capture.

What stands around the loop is loaded when it is asked for: whoever only captures a function waits for none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

# Not put off, as modules of these names would take their place.
from wgpu_nn.train.capture import Captured, capture
from wgpu_nn.train.progress import Lines, Progress, Silent, Snapshot, progress

if TYPE_CHECKING:
    from wgpu_nn.train.callbacks import Callback, EarlyStopping
    from wgpu_nn.train.device_data import DeviceDataset
    from wgpu_nn.train.device_loader import DeviceLoader
    from wgpu_nn.train.folder import holds_run, remove_run
    from wgpu_nn.train.history import EpochRecord
    from wgpu_nn.train.learner import Learner
    from wgpu_nn.train.log import read_log
    from wgpu_nn.train.loggers import CsvLogger, TensorBoardLogger
    from wgpu_nn.train.precision import LossScale, working_copy
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

_HOMES = {
    "Batch": "step",
    "Callback": "callbacks",
    "CsvLogger": "loggers",
    "DeviceDataset": "device_data",
    "DeviceLoader": "device_loader",
    "EarlyStopping": "callbacks",
    "EpochRecord": "history",
    "Learner": "learner",
    "LossScale": "precision",
    "Output": "step",
    "Result": "session",
    "Session": "session",
    "StepFunction": "step",
    "TensorBoardLogger": "loggers",
    "holds_run": "folder",
    "read_log": "log",
    "remove_run": "folder",
    "working_copy": "precision",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = vars(importlib.import_module(f"wgpu_nn.train.{_HOMES[name]}"))[name]
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
