"""Golden files: arrays that a result was once, kept beside the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wgpu_nn.files import write_atomic
from wgpu_nn.testing.close import assert_close


def compare(path: Path, array: np.ndarray, update: bool, *, ulp: float, rtol: float, atol: float) -> None:
    """Compare an array with a file, type included; with ``update``, write the file."""
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda file: np.save(file, np.ascontiguousarray(array), allow_pickle=False))
        return
    if not path.is_file():
        raise AssertionError(f"golden: expected the file {path}, got none; write it with pytest --update-golden")
    expected = np.load(path, allow_pickle=False)
    if expected.dtype != array.dtype:
        raise AssertionError(f"golden {path.name}: expected {expected.dtype}, got {array.dtype}")
    assert_close(array, expected, ulp=ulp, rtol=rtol, atol=atol, name=f"golden {path.name}")
