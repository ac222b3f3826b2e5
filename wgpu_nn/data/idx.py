"""The IDX format of MNIST's files (http://yann.lecun.com/exdb/mnist/); knows nothing of what the numbers mean."""

from __future__ import annotations

import gzip
import math
import os
import zlib

import numpy as np

from wgpu_nn.errors import DataError

__all__ = ["read_idx"]

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MOST_AXES = 8
# Deflate makes a byte of at most 1,032: whoever claims more lies, and nothing need be allocated to find out.
_MOST_DEFLATED = 1032


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an IDX file, gzipped or not, into an array of its shape and element type, in native byte order.

    Raises DataError, naming the file, if it is missing, truncated, too long, or no IDX file.
    """
    where = f"read_idx: {os.fspath(path)}"
    try:
        with open(path, "rb") as raw:
            stored = os.fstat(raw.fileno()).st_size
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            file = gzip.GzipFile(fileobj=raw) if packed else raw
            dtype, shape = _header(where, file.read(4 + 4 * _MOST_AXES))
            start = 4 + 4 * len(shape)
            size = math.prod(shape) * dtype.itemsize
            if size > stored * (_MOST_DEFLATED if packed else 1):
                raise DataError(
                    f"{where}: expected {size} bytes for {list(shape)}, got a file of {stored}; is it whole?"
                )
            file.seek(start)
            data = file.read(size + 1)
    except OSError as error:  # gzip's BadGzipFile is one
        raise DataError(
            f"{where}: expected a readable file, got {error}; is the path right, is the file whole?"
        ) from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{where}: expected a whole gzip file, got {error}; copy or download it again") from error
    if len(data) != size:
        came = f"{len(data)}" if len(data) < size else "more"
        raise DataError(f"{where}: expected {size} bytes of data for {list(shape)}, got {came}; is the file whole?")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _header(where: str, head: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    zeros, code, rank = (head[:2], head[2], head[3]) if len(head) >= 4 else (head, 0, 0)
    if zeros != b"\0\0" or code not in _DTYPES or not 1 <= rank <= _MOST_AXES:
        raise DataError(
            f"{where}: expected an IDX file (00 00, type, rank 1 to 8), got {head[:4].hex(' ') or 'nothing'}"
        )
    if len(head) < 4 + 4 * rank:
        raise DataError(f"{where}: expected {rank} sizes, got a file that ends before; is the file whole?")
    return np.dtype(_DTYPES[code]), tuple(int(n) for n in np.frombuffer(head, ">u4", rank, 4))
