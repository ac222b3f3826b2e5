"""Arrays as PNG files, in standard Python: pixels of inputs that were images, and a matrix too large for a table."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

SIDE = 128  # pixels that an image of a report has at most; of larger ones every n-th is taken
LAYOUTS = {1: 0, 3: 2}  # channels -> PNG's colour type (PNG specification, 11.2.1): grey, RGB


def pixels(inputs: np.ndarray) -> np.ndarray | None:
    """Return images [n, h, w, channels] of 8 bits from inputs [n, h, w], [n, c, h, w] or [n, h, w, c]; None for others.

    1 and 3 channels are shown. Bytes are taken as they are, Floats from 0 to 1 as brightness, and others as far as they
    reach: their least is black, and their largest is white.
    """
    if inputs.ndim == 3:
        images = inputs[..., None]
    elif inputs.ndim == 4 and inputs.shape[1] in LAYOUTS:
        images = np.moveaxis(inputs, 1, -1)
    elif inputs.ndim == 4 and inputs.shape[-1] in LAYOUTS:
        images = inputs
    else:
        return None
    if not images.size or images.dtype.kind not in "fiub":
        return None
    every = -(-max(images.shape[1:3]) // SIDE)
    images = images[:, ::every, ::every]
    if images.dtype == np.uint8:
        return images
    values = np.nan_to_num(images.astype(np.float64))
    low, high = min(float(values.min()), 0.0), float(values.max())
    if low < 0.0 or high > 1.0:
        low = float(values.min())
        values = (values - low) / (high - low if high > low else 1.0)
    return np.round(values * 255).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    """Return the PNG file of an image [h, w, 1 or 3] of 8 bits (PNG specification, third edition)."""
    height, width, channels = image.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)  # a filter type of 0 begins each row
    rows[:, 1:] = image.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, LAYOUTS[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def data_uri(image: np.ndarray) -> str:
    """Return the address that holds the image itself."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
