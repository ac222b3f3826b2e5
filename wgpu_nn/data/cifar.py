"""CIFAR-10 and CIFAR-100 in their binary form (https://www.cs.toronto.edu/~kriz/cifar.html): where from, how checked."""

from __future__ import annotations

import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np

from wgpu_nn.data.fetch import fetched
from wgpu_nn.errors import DataError

__all__ = ["CIFAR10", "CIFAR100", "Cifar", "fetch_cifar10", "fetch_cifar100", "load_cifar"]

PIXELS = 3 * 32 * 32

Halves: TypeAlias = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""((x_train, y_train), (x_test, y_test)): images uint8 [n, 3, 32, 32], labels int32 [n]."""


@dataclass(frozen=True, slots=True)
class Cifar:
    """One of the two: its archive with its SHA-256, mirrors, records of training and test files, and how many classes.

    A record is ``labels`` bytes, the last of them the class, and then the pixels: a plane of red, of green, of blue.
    """

    name: str
    archive: str
    digest: str
    mirrors: tuple[str, ...]
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: int
    classes: int


HOME = "https://www.cs.toronto.edu/~kriz/"
COPIES = "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/"

CIFAR10 = Cifar(
    "cifar10",
    "cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    (HOME, f"{COPIES}CIFAR10/"),
    tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    ("test_batch.bin",),
    1,
    10,
)
CIFAR100 = Cifar(
    "cifar100",
    "cifar-100-binary.tar.gz",
    "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    (HOME, f"{COPIES}CIFAR100/"),
    ("train.bin",),
    ("test.bin",),
    2,
    100,
)


def load_cifar(path: str | os.PathLike[str], which: Cifar = CIFAR10) -> Halves:
    """Read CIFAR's binary files from a folder, or from their archive: ((x_train, y_train), (x_test, y_test)).

    Images are uint8 ``[n, 3, 32, 32]`` and labels int32 ``[n]``; those of CIFAR-100 are the fine ones. Raises DataError for
    files that are missing, cut off, or have a class that there is none of.
    """
    source = Path(path)
    wanted = (*which.train, *which.test)
    found = _from_folder(source, wanted) if source.is_dir() else _from_archive(source, wanted)
    parts = [_records(f"load_cifar: {source}, {name}", found[name], which) for name in wanted]
    train, test = parts[: len(which.train)], parts[len(which.train) :]
    joined = [(np.concatenate([x for x, _ in half]), np.concatenate([y for _, y in half])) for half in (train, test)]
    return joined[0], joined[1]


def fetch_cifar10(cache_dir: str | os.PathLike[str] | None = None) -> Halves:
    """Return CIFAR-10's 50,000 and 10,000 images, downloaded once from a mirror, checked, and kept; see ``load_cifar``.

    Raises DataError when no mirror has the right file; MissingExtraError without pooch.
    """
    return _fetched("fetch_cifar10", CIFAR10, cache_dir)


def fetch_cifar100(cache_dir: str | os.PathLike[str] | None = None) -> Halves:
    """Return CIFAR-100's 50,000 and 10,000 images as ``fetch_cifar10`` does CIFAR-10's."""
    return _fetched("fetch_cifar100", CIFAR100, cache_dir)


def _fetched(what: str, which: Cifar, cache_dir: str | os.PathLike[str] | None) -> Halves:
    otherwise = f"get {which.archive} from elsewhere, and give load_cifar its path"
    folder = fetched(what, which.name, {which.archive: which.digest}, which.mirrors, cache_dir, otherwise)
    return load_cifar(folder / which.archive, which)


def _from_folder(folder: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name in wanted:
        try:
            found[name] = (folder / name).read_bytes()
        except OSError as error:
            raise DataError(
                f"load_cifar: expected {name} in {folder}, got {error.strerror}; is it the folder of the binary files?"
            ) from error
    return found


def _from_archive(path: Path, wanted: tuple[str, ...]) -> dict[str, bytes]:
    """Return the files of an archive by their last name; nothing is unpacked to disk."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                file = archive.extractfile(member) if name in wanted and member.isfile() else None
                if file is not None:
                    found[name] = file.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(
            f"load_cifar: {path}: expected a readable tar archive, got {error}; is the path right?"
        ) from error
    absent = [name for name in wanted if name not in found]
    if absent:
        raise DataError(f"load_cifar: {path}: expected {absent[0]} in the archive, got none; is it the binary version?")
    return found


def _records(where: str, content: bytes, which: Cifar) -> tuple[np.ndarray, np.ndarray]:
    size = which.labels + PIXELS
    if not content or len(content) % size:
        raise DataError(f"{where}: expected records of {size} bytes, got {len(content)} bytes; is the file whole?")
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    labels = records[:, which.labels - 1].astype(np.int32)
    if labels.max() >= which.classes:
        raise DataError(
            f"{where}: expected classes below {which.classes}, got {labels.max()} in record {labels.argmax()}; "
            "is it the file of the other CIFAR?"
        )
    return records[:, which.labels :].reshape(-1, 3, 32, 32).copy(), labels
