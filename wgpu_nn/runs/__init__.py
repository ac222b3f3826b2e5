"""Runs as configs: from a RunConfig to a Learner and its data, and from a run's folder back to its model."""

from wgpu_nn.runs.config import RunConfig
from wgpu_nn.runs.facts import Facts
from wgpu_nn.runs.inputs import Inputs, read_inputs
from wgpu_nn.runs.prepare import Prepared, prepare
from wgpu_nn.runs.saved import SavedRun, saved_config
from wgpu_nn.runs.training import Run, learner_of, run_of

__all__ = [
    "Facts",
    "Inputs",
    "Prepared",
    "Run",
    "RunConfig",
    "SavedRun",
    "learner_of",
    "prepare",
    "read_inputs",
    "run_of",
    "saved_config",
]
