"""NumPy's files as arrays by name; whom to tell of a damaged one, and what to do then, callers know."""

from __future__ import annotations

import os
from collections.abc import Container
from typing import Any

import numpy as np

__all__ = ["ALONE", "load_arrays"]

ALONE = "array"  # the name of an .npy file's


def load_arrays(path: str | os.PathLike[str], wanted: Container[str] | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file by name, of the ``wanted`` names only if there are some, or that of an .npy file.

    Raises OSError for a file that cannot be read, and ValueError, saying why, for one that is no such file.
    """
    with open(path, "rb") as raw:  # NOTE: np.load, given a path, leaves damaged files open
        try:
            loaded: Any = np.load(raw, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {ALONE: loaded}
            with loaded:
                found = {name: loaded[name] for name in loaded.files if wanted is None or name in wanted}
        except (
            Exception
        ) as error:  # damaged archives raise a dozen types, from zipfile, zlib, struct and NumPy's header
            raise ValueError(f"{type(error).__name__}: {error}") from error
    for name, array in found.items():
        if not isinstance(array, np.ndarray):  # an entry that is no .npy
            raise ValueError(f"other bytes as the array {name}")
    return found
