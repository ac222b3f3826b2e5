"""What a saved model is to predict from, read from files: images, rows of tables, arrays; without targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wgpu_nn.data import read_digit, read_image
from wgpu_nn.data.decode import EXTENSIONS
from wgpu_nn.errors import DataError
from wgpu_nn.runs.arrays import inputs_in, read_arrays
from wgpu_nn.runs.config import RunConfig
from wgpu_nn.runs.facts import Facts
from wgpu_nn.runs.sources import ArraysData, ImagesData, MnistData, TablePart

ARRAYS = (".npz", ".npy")
TOGETHER = 256  # images that are predicted at once


@dataclass(frozen=True, slots=True)
class Inputs:
    """Inputs [n, ...] of one source, and of each the file and the row that it came from; an image has no row."""

    source: str
    array: np.ndarray
    places: list[tuple[str, int | None]]


def read_inputs(config: RunConfig, facts: Facts, paths: list[Path], invert: bool = False) -> Iterator[Inputs]:
    """Yield the inputs in files and folders of images, some at a time; ``invert`` turns images' light and dark over.

    Raises DataError for files that are missing, damaged, or none of those that the run's data are.
    """
    images: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS)
            if not inside:
                raise DataError(f"predict: {path}: expected a folder of images, got none in it")
            images += inside
        elif path.suffix.lower() in EXTENSIONS:
            images.append(path)
        else:
            yield from _images(config, facts, images, invert)
            images = []
            array = _rows(config, facts, path)
            yield Inputs(str(path), array, [(str(path), row) for row in range(len(array))])
    yield from _images(config, facts, images, invert)


def _images(config: RunConfig, facts: Facts, paths: list[Path], invert: bool) -> Iterator[Inputs]:
    data = config.data
    for start in range(0, len(paths), TOGETHER):
        some = paths[start : start + TOGETHER]
        if isinstance(data, MnistData):
            found = [read_digit(path, resize=True, invert=invert) for path in some]
        elif isinstance(data, ImagesData):
            height, width = facts.inputs[-2:]
            found = [read_image(path, (height, width), data.channels) for path in some]
            found = [1 - image if invert else image for image in found]
        else:
            raise DataError(f"predict: {some[0]}: expected {_expected(config)}, got an image")
        array = np.stack(found).reshape(len(some), *facts.inputs)
        yield Inputs(str(some[0]), array, [(str(path), None) for path in some])


def _rows(config: RunConfig, facts: Facts, path: Path) -> np.ndarray:
    data = config.data
    if path.suffix.lower() in ARRAYS:
        names = (data.inputs, "x") if isinstance(data, ArraysData) else ("x_test", "x")
        return inputs_in(path, read_arrays(path), names)
    if isinstance(data, TablePart):
        return data.rows(str(path), facts.features).x
    raise DataError(f"predict: {path}: expected {_expected(config)}, got another file")


def _expected(config: RunConfig) -> str:
    if isinstance(config.data, TablePart):
        return f"{config.data.kind} files, .npz or .npy"
    return (
        ".npz or .npy files" if isinstance(config.data, ArraysData) else "images, folders of them, .npz or .npy files"
    )
