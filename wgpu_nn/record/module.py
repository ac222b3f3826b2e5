"""A module's parameters in one safetensors file, which other programs read too; what the module is, its config knows."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from wgpu_nn.errors import KindError, RecordError
from wgpu_nn.nn import Module
from wgpu_nn.record.tensors import load_tensors, save_tensors
from wgpu_nn.tensor import Device, Tensor, tensor

__all__ = ["from_arrays", "load_module", "save_module", "to_arrays"]


def save_module(module: Module, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write every parameter under its path in the tree, such as ``conv1.weight``, whole or not at all.

    Raises RecordError when the file cannot be written; MissingExtraError without safetensors.
    """
    save_tensors(path, to_arrays(module.state()), metadata)


def load_module(module: Module, path: str | os.PathLike[str]) -> None:
    """Replace every parameter by the file's, on the device where the module is.

    Raises RecordError, and leaves the module as it was, for a file that is missing, truncated, no safetensors file, or
    another model's.
    """
    arrays, _ = load_tensors(path)
    try:
        module.load_state(from_arrays(arrays))
    except (RecordError, KindError) as error:
        raise RecordError(f"load_module: {os.fspath(path)}: {error}") from error


def to_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return named tensors as NumPy arrays; waits for their device."""
    return {name: t.numpy() for name, t in tensors.items()}


def from_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Return named arrays as tensors on the CPU.

    Modules and optimizers compare them with what they have, and only then move them to their own device: a foreign file
    uploads nothing.
    """
    host = Device("numpy")
    return {name: tensor(array, host) for name, array in arrays.items()}
