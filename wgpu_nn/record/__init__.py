"""Modules, arrays and counters in files that survive a kill: atomic writes, safetensors, checkpoints."""

from wgpu_nn.files import write_atomic
from wgpu_nn.record.checkpoint import Checkpoint, checkpoint_at, latest_checkpoint, load_checkpoint, save_checkpoint
from wgpu_nn.record.module import load_module, save_module
from wgpu_nn.record.tensors import load_tensors, save_tensors

__all__ = [
    "Checkpoint",
    "checkpoint_at",
    "latest_checkpoint",
    "load_checkpoint",
    "load_module",
    "load_tensors",
    "save_checkpoint",
    "save_module",
    "save_tensors",
    "write_atomic",
]
