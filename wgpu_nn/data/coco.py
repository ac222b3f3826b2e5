"""COCO's annotation files (https://cocodataset.org/#format-data): images with boxes; crowds and outlines are left out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np

from wgpu_nn.data.dataset import Index, Item, Source
from wgpu_nn.data.decode import read_image
from wgpu_nn.data.folders import check_image_arguments, stacked_rows
from wgpu_nn.errors import DataError

__all__ = ["CocoBoxes"]


class CocoBoxes(Source):
    """Images with boxes, from a COCO annotation file: items are (image float32 ``[channels, height, width]`` in 0..1,
    boxes float32 ``[most, 4]``, classes int32 ``[most]``).

    A box is left, top, right, bottom in pixels of the item's image, whatever ``size`` (height, width) makes of it. ``most`` is
    that of the image of the most boxes, unless given: all batches have one shape, and unused places boxes of 0 and
    class -1. Class c is the c-th category by its number in the file; ``classes`` has their names. Annotations of crowds are
    left out. Raises DataError for files that are missing or damaged, boxes of images or categories that are not there, boxes
    without extent or beyond their image, and an image of more than ``most`` boxes.
    """

    __slots__ = ("boxes", "channels", "classes", "counts", "kinds", "paths", "shapes", "size")

    def __init__(
        self,
        annotations: str | os.PathLike[str],
        images: str | os.PathLike[str],
        size: tuple[int, int] | None = None,
        channels: int = 3,
        *,
        most: int | None = None,
    ) -> None:
        check_image_arguments("CocoBoxes", size, channels)
        where = f"CocoBoxes: {os.fspath(annotations)}"
        content = _read(where, Path(annotations))
        try:
            categories = sorted((int(c["id"]), str(c["name"])) for c in content["categories"])
            numbers = {number: place for place, (number, _) in enumerate(categories)}
            every = sorted(content["images"], key=lambda image: image["id"])
            shapes = {image["id"]: (int(image["height"]), int(image["width"])) for image in every}
            names = [str(image["file_name"]) for image in every]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{where}: expected images (id, file_name, height, width) and categories (id, name), "
                f"got {type(error).__name__}: {error}; is it a file of COCO detections?"
            ) from error
        if not every or not categories:
            raise DataError(
                f"{where}: expected at least one image and one category, got {len(every)}, {len(categories)}"
            )
        self.classes = tuple(name for _, name in categories)
        boxes: dict[Any, list[list[float]]] = {key: [] for key in shapes}
        kinds: dict[Any, list[int]] = {key: [] for key in shapes}
        for i, annotation in enumerate(content["annotations"]):
            if not isinstance(annotation, dict) or annotation.get("iscrowd"):
                continue
            key, box = _box(f"{where}, annotation {i}", annotation, shapes)
            number = annotation.get("category_id")
            if number not in numbers:
                raise DataError(f"{where}, annotation {i}: expected a category of {sorted(numbers)}, got {number}")
            boxes[key].append(box)
            kinds[key].append(numbers[number])
        self.paths = tuple(Path(images) / name for name in names)
        absent = [path for path in self.paths if not path.is_file()]
        if absent:
            raise DataError(f"{where}: expected {absent[0]}, and {len(absent) - 1} more files that are not there")
        self.shapes = np.array(list(shapes.values()), np.float32)
        self.counts = np.array([len(boxes[key]) for key in shapes])
        room = max(1, int(self.counts.max())) if most is None else most
        if room < self.counts.max():
            i = int(self.counts.argmax())
            raise DataError(f"{where}: expected at most {room} boxes, got {self.counts[i]} for {names[i]}; raise most")
        self.boxes = np.zeros((len(every), room, 4), np.float32)
        self.kinds = np.full((len(every), room), -1, np.int32)
        for i, key in enumerate(shapes):
            if boxes[key]:
                self.boxes[i, : len(boxes[key])] = boxes[key]
                self.kinds[i, : len(kinds[key])] = kinds[key]
        self.size, self.channels = size, channels

    @property
    def labels(self) -> np.ndarray:
        """The classes of the boxes: int32 ``[len(self), most]``."""
        return self.kinds

    def take(self, indices: np.ndarray) -> CocoBoxes:
        """Return the images ``indices`` with their boxes."""
        part = copy(self)
        part.paths = tuple(self.paths[i] for i in indices)
        part.shapes, part.counts = self.shapes[indices], self.counts[indices]
        part.boxes, part.kinds = self.boxes[indices], self.kinds[indices]
        return part

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Index, /) -> Item:
        places = np.asarray(index)
        flat = places.reshape(-1).tolist()
        stacks = stacked_rows("CocoBoxes", [self._item(i) for i in flat], [str(self.paths[i]) for i in flat])
        return stacks if places.ndim else tuple(stack[0] for stack in stacks)

    def _item(self, i: int) -> Item:
        image = read_image(self.paths[i], self.size, self.channels)
        height, width = self.shapes[i]
        if self.size is None and image.shape[1:] != (height, width):
            raise DataError(
                f"CocoBoxes: {self.paths[i]}: expected {int(height)} x {int(width)} pixels as annotated, "
                f"got {image.shape[1]} x {image.shape[2]}; do file and annotations belong together?"
            )
        down, across = image.shape[1] / height, image.shape[2] / width
        return image, self.boxes[i] * np.array([across, down, across, down], np.float32), self.kinds[i]


def _read(where: str, path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{where}: expected a readable file, got {error.strerror}; is the path right?") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: expected JSON, got {error}; is the file whole?") from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(k), list) for k in ("images", "annotations", "categories")
    ):
        raise DataError(f"{where}: expected images, annotations and categories, got other JSON; is it a COCO file?")
    return content


def _box(where: str, annotation: Mapping[str, Any], shapes: Mapping[Any, tuple[int, int]]) -> tuple[Any, list[float]]:
    """Return the image of an annotation, and its box as left, top, right, bottom."""
    key = annotation.get("image_id")
    if key not in shapes:
        raise DataError(f"{where}: expected the number of an image, got {key}")
    try:
        left, top, width, height = (float(number) for number in annotation["bbox"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: expected bbox [left, top, width, height], got {annotation.get('bbox')}") from error
    rows, columns = shapes[key]
    # A pixel of grace: annotators round.
    inside = left >= -1 and top >= -1 and left + width <= columns + 1 and top + height <= rows + 1
    if not (width > 0 and height > 0 and inside):
        raise DataError(
            f"{where}: expected a box of some extent within {columns} x {rows} pixels, got {[left, top, width, height]}"
        )
    return key, [max(left, 0.0), max(top, 0.0), min(left + width, float(columns)), min(top + height, float(rows))]
