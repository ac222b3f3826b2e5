"""How a tensor prints: its elements as NumPy prints them, then shape, kind and device."""

from __future__ import annotations

import numpy as np


def text(array: np.ndarray, kind: str, dtype: str, device: str) -> str:
    """Return ``Tensor(...)`` with long arrays shortened."""
    shown = np.array2string(
        array, precision=4, threshold=200, edgeitems=3, separator=", ", prefix="Tensor(", suppress_small=False
    )
    return (
        f"Tensor({shown}, shape={list(array.shape)}, kind={kind.removeprefix('Kind.')}, dtype={dtype}, device={device})"
    )
