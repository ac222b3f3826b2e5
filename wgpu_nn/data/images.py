"""Image files to the digit classifier's input; how the model normalises it, callers know."""

from __future__ import annotations

import io
import os
import warnings
from typing import Any

import numpy as np

from wgpu_nn.errors import DataError, missing_extra

__all__ = ["read_digit"]

SIDE = 28
# Formats that Pillow decodes by itself: others (EPS) start programs.
_FORMATS = ("PNG", "JPEG", "PPM", "BMP", "GIF", "TIFF", "WEBP")
_MOST_PIXELS = 50_000_000  # a telephone's photograph
_MOST_BYTES = 8 * _MOST_PIXELS  # four channels of 16 bits, not compressed


def read_digit(path: str | os.PathLike[str], *, resize: bool = False, invert: bool = False) -> np.ndarray:
    """Read an image file as grey values: float32 [28, 28], 0 black to 1 white, as MNIST's bytes divided by 255.

    MNIST's digits are white on black: ``invert`` a photograph of ink on paper. Colours are weighted as in ITU-R 601-2;
    what is transparent lies on white. ``resize`` shrinks or enlarges any size to 28 x 28, without keeping proportions.
    Raises DataError for files that are missing, damaged, no image, or, without ``resize``, of another size;
    MissingExtraError without Pillow.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise missing_extra("read_digit", "pillow", "train") from error
    where = f"read_digit: {os.fspath(path)}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged metadata, and sizes that are checked below
            with Image.open(_whole(where, path), formats=_FORMATS) as image:
                width, height = image.size
                # Before any pixel is decoded: a small file can claim a huge size.
                if width * height > _MOST_PIXELS:
                    raise DataError(f"{where}: expected at most {_MOST_PIXELS} pixels, got {width} x {height}; crop it")
                if not resize and image.size != (SIDE, SIDE):
                    raise DataError(
                        f"{where}: expected {SIDE} x {SIDE} pixels, got {width} x {height}; "
                        "crop it to the digit and resize it (resize=True, --resize)"
                    )
                grey = _grey(where, ImageOps.exif_transpose(image))
                if resize:
                    shrunk = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
                    grey = np.asarray(shrunk, np.float32)
    except DataError:
        raise
    except OSError as error:  # UnidentifiedImageError is one
        raise DataError(
            f"{where}: expected a readable image ({', '.join(_FORMATS)}), got {error}; is the path right?"
        ) from error
    except Exception as error:  # decoders raise SyntaxError, ValueError, struct.error and more for damaged files
        raise DataError(
            f"{where}: expected an image, got {type(error).__name__}: {error}; is the file whole?"
        ) from error
    return np.float32(1) - grey if invert else grey


def _whole(where: str, path: str | os.PathLike[str]) -> io.BytesIO:
    """Return a file's bytes; decoders that ask the file itself for what a damaged length claims would allocate that."""
    with open(path, "rb") as file:
        stored = os.fstat(file.fileno()).st_size
        if stored > _MOST_BYTES:
            raise DataError(f"{where}: expected a file of at most {_MOST_BYTES} bytes, got {stored}; is it an image?")
        return io.BytesIO(file.read())


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
