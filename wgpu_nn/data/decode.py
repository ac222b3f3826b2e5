"""Image files to arrays of any size, in grey or colour; which files, and what they show, others know."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from wgpu_nn.errors import DataError, missing_extra

__all__ = ["EXTENSIONS", "IMAGE_FORMATS", "decoded", "read_image", "read_mask"]

# Formats that Pillow decodes by itself: others (EPS) start programs.
IMAGE_FORMATS = ("PNG", "JPEG", "PPM", "BMP", "GIF", "TIFF", "WEBP")
EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
MOST_PIXELS = 50_000_000  # a telephone's photograph
Size = tuple[int, int]
T = TypeVar("T")


def decoded(where: str, path: str | os.PathLike[str], look: Callable[[Any], T]) -> T:
    """Return what ``look`` makes of an open image, upright; raises DataError, naming the file, if it is none or too large."""
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise missing_extra(where.partition(":")[0], "pillow", "data") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged metadata, and sizes that are checked below
            with Image.open(_whole(where, path), formats=IMAGE_FORMATS) as image:
                width, height = image.size
                # Before any pixel is decoded: a small file can claim a huge size.
                if width * height > MOST_PIXELS:
                    raise DataError(f"{where}: expected at most {MOST_PIXELS} pixels, got {width} x {height}; crop it")
                return look(ImageOps.exif_transpose(image))
    except DataError:
        raise
    except OSError as error:  # UnidentifiedImageError is one
        raise DataError(
            f"{where}: expected a readable image ({', '.join(IMAGE_FORMATS)}), got {error}; is the path right?"
        ) from error
    except Exception as error:  # decoders raise SyntaxError, ValueError, struct.error and more for damaged files
        raise DataError(
            f"{where}: expected an image, got {type(error).__name__}: {error}; is the file whole?"
        ) from error


def _whole(where: str, path: str | os.PathLike[str]) -> io.BytesIO:
    """Return a file's bytes; decoders that ask the file itself for what a damaged length claims would allocate that."""
    with open(path, "rb") as file:
        stored = os.fstat(file.fileno()).st_size
        if stored > 8 * MOST_PIXELS:  # four channels of 16 bits, not compressed
            raise DataError(
                f"{where}: expected a file of at most {8 * MOST_PIXELS} bytes, got {stored}; is it an image?"
            )
        return io.BytesIO(file.read())


def read_image(path: str | os.PathLike[str], size: Size | None = None, channels: int = 3) -> np.ndarray:
    """Read an image file as float32 [channels, height, width] in 0..1: 3 for red, green, blue, 1 for grey, 4 with alpha.

    ``size`` (height, width) resizes by antialiased bilinear sampling, without keeping proportions. Photographs are turned
    upright; 16 bits keep their depth. Raises DataError for files that are missing, damaged, no image, or too large;
    MissingExtraError without Pillow.
    """
    where = f"read_image: {os.fspath(path)}"
    return decoded(where, path, lambda image: _values(where, image, size, channels))


def _values(where: str, image: Any, size: Size | None, channels: int) -> np.ndarray:
    from PIL import Image

    deep = image.mode.startswith("I")
    if image.mode == "F" or (deep and channels != 1 and "transparency" in image.info):
        raise DataError(f"{where}: expected 8 or 16 bits per value, got floats; convert the image")
    if deep:  # 16 bits; NOTE: convert("L") would clip them at 255
        grey = np.asarray(image, np.float32)
        if grey.size and not 0 <= grey.min() <= grey.max() <= 65535:
            raise DataError(f"{where}: expected 8 or 16 bits per value, got more; convert the image")
        plane = Image.fromarray(grey)
        planes = plane if size is None else plane.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        values = np.asarray(planes, np.float32)[None] / np.float32(65535)
        full = np.ones_like(values)
        return values if channels == 1 else np.concatenate([values, values, values, full][:channels])
    image = image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    values = np.asarray(image, np.uint8)
    planes = values[None] if channels == 1 else values.transpose(2, 0, 1)
    return np.ascontiguousarray(planes).astype(np.float32) / np.float32(255)


def read_mask(path: str | os.PathLike[str], size: Size | None = None) -> np.ndarray:
    """Read a mask, an image of one class for each pixel: int32 [height, width], grey values or palette indices as stored.

    ``size`` (height, width) takes the nearest pixel, so that no class is mixed. Raises DataError as ``read_image`` does, and
    for images of colours.
    """
    where = f"read_mask: {os.fspath(path)}"

    def look(image: Any) -> np.ndarray:
        from PIL import Image

        if image.mode not in ("L", "P", "1") and not image.mode.startswith("I"):
            raise DataError(
                f"{where}: expected one number for each pixel, got colours ({image.mode}); convert the mask"
            )
        if size is not None and image.size != (size[1], size[0]):
            image = image.resize((size[1], size[0]), Image.Resampling.NEAREST)
        return np.asarray(image).astype(np.int32)

    return decoded(where, path, look)
