"""Image files to the digit classifier's input; how the model normalises it, callers know."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from wgpu_nn.data.decode import decoded
from wgpu_nn.errors import DataError

__all__ = ["read_digit"]

SIDE = 28


def read_digit(path: str | os.PathLike[str], *, resize: bool = False, invert: bool = False) -> np.ndarray:
    """Read an image file as grey values: float32 [28, 28], 0 black to 1 white, as MNIST's bytes divided by 255.

    MNIST's digits are white on black: ``invert`` a photograph of ink on paper. Colours are weighted as in ITU-R 601-2;
    what is transparent lies on white. ``resize`` shrinks or enlarges any size to 28 x 28, without keeping proportions.
    Raises DataError for files that are missing, damaged, no image, or, without ``resize``, of another size;
    MissingExtraError without Pillow.
    """
    where = f"read_digit: {os.fspath(path)}"
    grey = decoded(where, path, lambda image: _resized(where, image, resize))
    return np.float32(1) - grey if invert else grey


def _resized(where: str, image: Any, resize: bool) -> np.ndarray:
    from PIL import Image

    if not resize and image.size != (SIDE, SIDE):
        raise DataError(
            f"{where}: expected {SIDE} x {SIDE} pixels, got {image.size[0]} x {image.size[1]}; "
            "crop it to the digit and resize it (resize=True, --resize)"
        )
    grey = _grey(where, image)
    if not resize:
        return grey
    return np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)


def _grey(where: str, image: Any) -> np.ndarray:
    """Return any of Pillow's modes as float32 [height, width] in 0..1."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits; NOTE: convert("L") would clip them at 255
        grey = np.asarray(image, np.float32) / np.float32(65535)
        if grey.size and not 0 <= grey.min() <= grey.max() <= 1:
            raise DataError(f"{where}: expected 8 or 16 bits per value, got more; convert the image")
        return grey
    if image.mode == "F":
        raise DataError(f"{where}: expected 8 or 16 bits per value, got floats of unknown range; convert the image")
    if image.mode in {"LA", "PA", "La", "RGBA", "RGBa"} or "transparency" in image.info:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours)
    return np.asarray(image.convert("L"), np.float32) / np.float32(255)
