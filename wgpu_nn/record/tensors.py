"""Named arrays in one safetensors file; knows neither modules nor devices."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wgpu_nn.errors import RecordError, missing_extra
from wgpu_nn.files import write_atomic

__all__ = ["load_tensors", "save_tensors"]

# A header spends about 100 bytes on a tensor, so this is room for 160,000; more is a bomb, or no safetensors file.
LARGEST_HEADER = 16 * 2**20
FOREIGN = "is it a safetensors file, and was it copied whole?"


def save_tensors(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays of any shape, strides and byte order, and a dictionary of strings, to ``path``, atomically.

    Raises RecordError for element types that safetensors does not have (complex128, objects, strings), for names and
    metadata that are not strings, and when the file cannot be written; MissingExtraError without safetensors.
    """
    codec = _safetensors("save_tensors")
    plain: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if not isinstance(name, str) or name == "__metadata__":  # pyright: ignore[reportUnnecessaryIsInstance]
            raise RecordError(f"save_tensors: {path}: expected a tensor's name, got {name!r}; give it another")
        # NOTE: safetensors writes the memory of a strided array as it lies, silently wrong. And ascontiguousarray
        # would turn rank 0 into rank 1.
        plain[name] = np.asarray(array, dtype=np.asarray(array).dtype.newbyteorder("="), order="C")
    try:
        data = codec.numpy.save(plain, metadata=None if metadata is None else dict(metadata))
    except Exception as error:  # it raises its own type, TypeError and ValueError for the same causes
        raise RecordError(
            f"save_tensors: {path}: expected arrays of numbers or booleans and metadata of strings, got {error}; "
            "convert them before saving"
        ) from error
    write_atomic(path, data)


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read what ``save_tensors``, or another writer of safetensors, wrote: the arrays, writable, and the metadata.

    Raises RecordError, naming the file, when it is missing, unreadable, truncated, no safetensors file, or holds an
    element type that NumPy does not have (bfloat16); MissingExtraError without safetensors.
    """
    codec = _safetensors("load_tensors")
    where = f"load_tensors: {os.fspath(path)}"
    _check_header(where, Path(path))
    try:
        with codec.safe_open(os.fspath(path), framework="numpy") as file:
            names: list[str] = list(file.keys())
            metadata: dict[str, str] = dict(file.metadata() or {})
            try:
                return {name: file.get_tensor(name) for name in names}, metadata
            except (TypeError, AttributeError) as error:
                raise RecordError(
                    f"{where}: expected element types that NumPy has, got {error}; convert the file to float32"
                ) from error
    except RecordError:
        raise
    except Exception as error:  # SafetensorError, OSError, MemoryError and whatever its bindings raise for bad bytes
        raise RecordError(f"{where}: expected a safetensors file, got {error}; {FOREIGN}") from error


def _check_header(where: str, path: Path) -> None:
    """Refuse what is no file, and headers that cannot be true, before a parser sees them."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise RecordError(f"{where}: expected a readable file, got {error.strerror}; is the path right?") from error
    if size < 8 or length > size - 8:
        raise RecordError(f"{where}: expected a header of {length} bytes, got a file of {size} bytes; {FOREIGN}")
    if length > LARGEST_HEADER:
        raise RecordError(f"{where}: expected a header of at most {LARGEST_HEADER} bytes, got {length}; {FOREIGN}")


def _safetensors(what: str) -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise missing_extra(what, "safetensors", "train") from error
    return safetensors
