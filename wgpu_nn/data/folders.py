"""Folders as data sets: a folder of files for each class, images beside their masks; how files are decoded, others know."""

from __future__ import annotations

import os
from collections.abc import Sequence
from copy import copy
from pathlib import Path

import numpy as np

from wgpu_nn.data.dataset import Index, Item, Source
from wgpu_nn.data.decode import EXTENSIONS, read_image, read_mask
from wgpu_nn.errors import DataError

__all__ = ["ImageFolder", "MaskFolder", "TextFolder"]

KEPT = 20  # bad files that a data set describes; it counts all


def check_image_arguments(what: str, size: tuple[int, int] | None, channels: int) -> None:
    """Raise DataError for sizes and channels that no image has."""
    if channels not in (1, 3, 4) or (size is not None and (len(size) != 2 or min(size) < 1)):
        raise DataError(
            f"{what}: expected size (height, width) of 1 or more and 1, 3 or 4 channels, got {size} and {channels}"
        )


def stacked_rows(what: str, items: list[Item], names: Sequence[str]) -> Item:
    """Stack items of one shape; raises DataError that names the first file of another."""
    first = [array.shape for array in items[0]]
    for item, name in zip(items, names, strict=True):
        shapes = [array.shape for array in item]
        if shapes != first:
            raise DataError(
                f"{what}: expected images of one size in a batch, got {[list(s) for s in shapes]} of {name} after "
                f"{[list(s) for s in first]}; give size=(height, width)"
            )
    return tuple(np.stack(arrays) for arrays in zip(*items, strict=True))


def _listed(what: str, folder: Path) -> list[Path]:
    """Return what is in a folder, by name; what begins with a dot is left out."""
    try:
        return sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: p.name)
    except OSError as error:
        raise DataError(
            f"{what}: expected a readable folder, got {folder}: {error.strerror}; is the path right?"
        ) from error


def by_class(
    what: str, folder: Path, classes: Sequence[str] | None, extensions: frozenset[str]
) -> tuple[tuple[str, ...], tuple[Path, ...], np.ndarray]:
    """Return the classes, the files below their folders, at any depth, and the class of each."""
    found = tuple(path.name for path in _listed(what, folder) if path.is_dir())
    names = found if classes is None else tuple(classes)
    strange = sorted(set(found) - set(names)) if classes is not None else []
    if not names or strange:
        raise DataError(
            f"{what}: {folder}: expected a folder for each class{f' of {list(names)}' if classes else ''}, "
            f"got {strange or 'none'}; name all classes, or move the others"
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        inside = [p for p in _walk(what, folder / name) if p.suffix.lower() in extensions]
        if not inside and classes is None:
            raise DataError(
                f"{what}: expected files ({', '.join(sorted(extensions))}) in {folder / name}, got none; "
                "remove the folder, or put its files there"
            )
        files += inside
        labels += [label] * len(inside)
    if not files:
        raise DataError(f"{what}: {folder}: expected at least one file, got none; is the path right?")
    return names, tuple(files), np.array(labels, np.int32)


def _walk(what: str, folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []  # a class that is named, and of which there is nothing here (a small validation set)
    inside: list[Path] = []
    for path in _listed(what, folder):
        inside += _walk(what, path) if path.is_dir() else [path]
    return inside


class TextFolder(Source):
    """Text files in a folder for each class: items are (text, class int32). A batch's texts are an array of strings.

    Classes are the folders' names, sorted, or ``classes``, all of them. Raises DataError for folders that are missing, empty
    or not among the classes, and, from the items, for files that are no text in ``encoding``.
    """

    __slots__ = ("_labels", "classes", "encoding", "paths")

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        classes: Sequence[str] | None = None,
        extensions: Sequence[str] = (".txt",),
        encoding: str = "utf-8",
    ) -> None:
        wanted = frozenset(extension.lower() for extension in extensions)
        self.classes, self.paths, self._labels = by_class("TextFolder", Path(path), classes, wanted)
        self.encoding = encoding

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    def take(self, indices: np.ndarray) -> TextFolder:
        """Return the files ``indices``."""
        part = copy(self)
        part.paths, part._labels = tuple(self.paths[i] for i in indices), self._labels[indices]
        return part

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Index, /) -> Item:
        places = np.asarray(index)
        texts = [self._text(self.paths[i]) for i in places.reshape(-1)]
        # NOTE: not an array of "U", which is as wide everywhere as the longest text, and drops zeros at the end.
        joined = np.empty(len(texts), object)
        joined[:] = texts
        return joined.reshape(places.shape), np.asarray(self._labels[places])

    def _text(self, path: Path) -> str:
        try:
            return path.read_text(encoding=self.encoding)
        except (OSError, UnicodeDecodeError, LookupError) as error:
            raise DataError(
                f"TextFolder: {path}: expected text in {self.encoding}, got {error}; name the encoding, or convert the file"
            ) from error


class ImageFolder(Source):
    """Images in a folder for each class: items are (image float32 ``[channels, height, width]`` in 0..1, class int32).

    Classes are the folders' names, sorted, or ``classes``, all of them; a folder may have folders. Without ``size`` (height,
    width) images keep their own, which must then be one. Images are decoded when they are asked for: workers make that
    quick, ``cached`` makes it once. With ``skip_bad`` all of them are decoded here, and those that cannot be are left out:
    ``bad`` describes the first, ``skipped`` counts them. Raises DataError for folders that are missing, empty, or not among
    the classes, and, from the items, for damaged files; MissingExtraError without Pillow.
    """

    __slots__ = ("_labels", "bad", "channels", "classes", "paths", "size", "skipped")

    def __init__(
        self,
        path: str | os.PathLike[str],
        size: tuple[int, int] | None = None,
        channels: int = 3,
        *,
        classes: Sequence[str] | None = None,
        skip_bad: bool = False,
    ) -> None:
        check_image_arguments("ImageFolder", size, channels)
        self.classes, self.paths, self._labels = by_class("ImageFolder", Path(path), classes, EXTENSIONS)
        self.size, self.channels = size, channels
        self.bad: tuple[str, ...] = ()
        self.skipped = 0
        if skip_bad:
            self._leave_out_bad(Path(path))

    def _leave_out_bad(self, path: Path) -> None:
        good: list[int] = []
        bad: list[str] = []
        for i, image in enumerate(self.paths):
            try:
                read_image(image, self.size, self.channels)
                good.append(i)
            except DataError as error:
                bad.append(str(error))
        if not good:
            raise DataError(f"ImageFolder: {path}: expected an image that can be read, got none; the first: {bad[0]}")
        self.paths, self._labels = tuple(self.paths[i] for i in good), self._labels[good]
        self.bad, self.skipped = tuple(bad[:KEPT]), len(bad)

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    def take(self, indices: np.ndarray) -> ImageFolder:
        """Return the images ``indices``."""
        part = copy(self)
        part.paths, part._labels = tuple(self.paths[i] for i in indices), self._labels[indices]
        return part

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Index, /) -> Item:
        places = np.asarray(index)
        paths = [self.paths[i] for i in places.reshape(-1)]
        images = [(read_image(path, self.size, self.channels),) for path in paths]
        (stack,) = stacked_rows("ImageFolder", images, [str(path) for path in paths])
        return (stack if places.ndim else stack[0]), np.asarray(self._labels[places])


class MaskFolder(Source):
    """Images and their masks, by the same name in two folders: items are (image float32 ``[channels, height, width]``
    in 0..1, mask int32 ``[height, width]`` of classes).

    A mask has a number for each pixel, below ``classes``, or ``ignore`` (255 is usual) where there is none. Raises DataError
    for folders that are missing or empty, an image without a mask or a mask without an image, and, from the items, for
    damaged files, sizes that differ, and numbers that are no class, with their file; MissingExtraError without Pillow.
    """

    __slots__ = ("channels", "classes", "ignore", "masks", "paths", "size")

    def __init__(
        self,
        images: str | os.PathLike[str],
        masks: str | os.PathLike[str],
        classes: int,
        size: tuple[int, int] | None = None,
        channels: int = 3,
        *,
        ignore: int | None = None,
    ) -> None:
        check_image_arguments("MaskFolder", size, channels)
        of_images, of_masks = ({p.stem: p for p in _images(Path(folder))} for folder in (images, masks))
        alone = sorted(of_images.keys() ^ of_masks.keys())
        if alone or not of_images:
            raise DataError(
                f"MaskFolder: expected a mask in {masks} for each image in {images}, by the same name, got "
                f"{f'{alone[0]!r} and {len(alone) - 1} more in one of them only' if alone else 'no image'}"
            )
        self.paths = tuple(of_images[stem] for stem in sorted(of_images))
        self.masks = tuple(of_masks[stem] for stem in sorted(of_images))
        self.classes, self.ignore, self.size, self.channels = classes, ignore, size, channels

    @property
    def labels(self) -> np.ndarray:
        raise DataError("MaskFolder: expected labels of items, got masks of pixels; give stratify an array of your own")

    def take(self, indices: np.ndarray) -> MaskFolder:
        """Return the images ``indices`` and their masks."""
        part = copy(self)
        part.paths, part.masks = (tuple(every[i] for i in indices) for every in (self.paths, self.masks))
        return part

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Index, /) -> Item:
        places = np.asarray(index)
        flat = places.reshape(-1).tolist()
        stacks = stacked_rows("MaskFolder", [self._item(i) for i in flat], [str(self.paths[i]) for i in flat])
        return stacks if places.ndim else tuple(stack[0] for stack in stacks)

    def _item(self, i: int) -> Item:
        image = read_image(self.paths[i], self.size, self.channels)
        mask = read_mask(self.masks[i], self.size)
        if mask.shape != image.shape[1:]:
            raise DataError(
                f"MaskFolder: {self.masks[i]}: expected a mask of its image's size {list(image.shape[1:])}, "
                f"got {list(mask.shape)}; do the two belong together?"
            )
        strange = mask[(mask < 0) | (mask >= self.classes) & (mask != (-1 if self.ignore is None else self.ignore))]
        if strange.size:
            raise DataError(
                f"MaskFolder: {self.masks[i]}: expected classes in 0 .. {self.classes - 1}, got {strange.flat[0]}; "
                "is it a mask? ignore=255 lets one number stand for no class"
            )
        return image, mask


def _images(folder: Path) -> list[Path]:
    return [p for p in _listed("MaskFolder", folder) if p.suffix.lower() in EXTENSIONS]
