"""NumPy's files as items: named arrays of .npz, the one of .npy; knows nothing of configs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wgpu_nn.data import ArrayDataset
from wgpu_nn.data.npz import load_arrays
from wgpu_nn.errors import DataError


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file by name, or that of an .npy file; DataError for other and damaged ones."""
    try:
        return load_arrays(path)
    except OSError as error:
        raise DataError(
            f"data: {path}: expected a readable .npz or .npy file, got {error.strerror or error}"
        ) from error
    except ValueError as error:
        raise DataError(f"data: {path}: expected an .npz or .npy file, got {error}; write it with np.savez") from error


def items_of(path: str, arrays: Mapping[str, np.ndarray], inputs: str, targets: str) -> ArrayDataset:
    """Return the items (input, target) of named arrays."""
    absent = [name for name in (inputs, targets) if name not in arrays]
    if absent:
        raise DataError(
            f"data: {path}: expected arrays {inputs} and {targets}, got {sorted(arrays)}; "
            "name them (data.inputs, data.targets), or give data.targets_path"
        )
    return ArrayDataset(arrays[inputs], arrays[targets])


def inputs_in(path: str | Path, arrays: Mapping[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    """Return the first array that has one of ``names``, or the only one."""
    for name in names:
        if name in arrays:
            return arrays[name]
    if len(arrays) != 1:
        raise DataError(
            f"predict: {path}: expected one array, or one called {' or '.join(names)}, got {sorted(arrays)}"
        )
    return next(iter(arrays.values()))
