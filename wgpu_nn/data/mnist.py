"""MNIST and its look-alikes: where the files come from, how they are checked and split; no normalisation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from wgpu_nn.data.fetch import fetched
from wgpu_nn.data.idx import read_idx
from wgpu_nn.data.npz import ALONE, load_arrays
from wgpu_nn.data.sampling import shuffled
from wgpu_nn.errors import DataError

__all__ = ["MNIST_FILES", "Digits", "fetch_fashion_mnist", "fetch_mnist", "load_digits_npz", "load_mnist"]

Digits: TypeAlias = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""((x_train, y_train), (x_test, y_test)): images uint8 [n, 28, 28], labels int32 [n] in 0..9."""

# The official files with their SHA-256: training images and labels, test images and labels.
MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
# The same names, with Fashion-MNIST's SHA-256.
FASHION_FILES = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
FASHION_MIRRORS = [
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
]
# yann.lecun.com itself has long refused downloads.
MIRRORS = ["https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"]
OTHERWISE = f"put {', '.join(MNIST_FILES)} from elsewhere into a folder and give load_mnist its path"
SPLIT_SEED = 0
TEST_PART = 10  # one item in ten


def load_mnist(path: str | os.PathLike[str]) -> Digits:
    """Read digits from a directory with MNIST's four IDX files, gzipped or not, or from an .npz file.

    Fashion-MNIST's files have the same names and are read the same way. For .npz see ``load_digits_npz``. Raises
    DataError for files that are missing, damaged, or hold anything but 28 x 28 images and labels in 0..9.
    """
    source = Path(path)
    if source.is_dir():
        images_train, labels_train, images_test, labels_test = (read_idx(_find(source, name)) for name in MNIST_FILES)
        return (
            _checked(f"load_mnist: {source}, training set", images_train, labels_train),
            _checked(f"load_mnist: {source}, test set", images_test, labels_test),
        )
    if source.is_file():
        return load_digits_npz(source)
    raise DataError(
        f"load_mnist: expected a directory of IDX files or an .npz file, got {source}, which does not exist; "
        "is the path right?"
    )


def load_digits_npz(path: str | os.PathLike[str]) -> Digits:
    """Read digits from an .npz file with arrays x, y, or x_train, y_train, x_test, y_test.

    A single set (x, y) is shuffled with a fixed seed and split 9:1, the same way each time. Raises DataError as
    ``load_mnist`` does.
    """
    where = f"load_digits_npz: {os.fspath(path)}"
    arrays = _read_npz(where, path)
    if arrays.keys() >= {"x_train", "y_train", "x_test", "y_test"}:
        return (
            _checked(f"{where}, training set", arrays["x_train"], arrays["y_train"]),
            _checked(f"{where}, test set", arrays["x_test"], arrays["y_test"]),
        )
    if not arrays.keys() >= {"x", "y"}:
        raise DataError(
            f"{where}: expected arrays x, y or x_train, y_train, x_test, y_test, got {sorted(arrays)}; "
            "save them with np.savez(path, x=images, y=labels)"
        )
    x, y = _checked(where, arrays["x"], arrays["y"])
    held_out = len(x) // TEST_PART
    if held_out == 0:
        raise DataError(f"{where}: expected at least {TEST_PART} items to split 9:1, got {len(x)}; add items")
    order = shuffled(len(x), SPLIT_SEED)
    train, test = order[:-held_out], order[-held_out:]
    return (x[train], y[train]), (x[test], y[test])


def fetch_mnist(cache_dir: str | os.PathLike[str] | None = None) -> Digits:
    """Return all 70,000 digits, downloaded once from a mirror, checked, and cached.

    The cache is the platform's, unless ``cache_dir`` names another. Raises DataError when no mirror answers with the
    right files; MissingExtraError without pooch.
    """
    return load_mnist(fetched("fetch_mnist", "mnist", MNIST_FILES, MIRRORS, cache_dir, OTHERWISE))


def fetch_fashion_mnist(cache_dir: str | os.PathLike[str] | None = None) -> Digits:
    """Return Fashion-MNIST's 70,000 images (Xiao et al. 2017), of the shapes and types of MNIST's; see ``fetch_mnist``.

    Its classes are T-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot.
    """
    what = "fetch_fashion_mnist"
    return load_mnist(fetched(what, "fashion-mnist", FASHION_FILES, FASHION_MIRRORS, cache_dir, OTHERWISE))


def _find(directory: Path, name: str) -> Path:
    for candidate in (directory / name, directory / name.removesuffix(".gz")):
        if candidate.is_file():
            return candidate
    raise DataError(f"load_mnist: expected {name}, gzipped or not, in {directory}, got no such file; copy it there")


def _read_npz(where: str, path: str | os.PathLike[str]) -> Mapping[str, np.ndarray]:
    try:
        arrays = load_arrays(path, {"x", "y", "x_train", "y_train", "x_test", "y_test"})
    except OSError as error:
        raise DataError(f"{where}: expected a readable .npz file, got {error}; is the path right?") from error
    except ValueError as error:
        raise DataError(f"{where}: expected an .npz file, got {error}; write it with np.savez(path, x=, y=)") from error
    if ALONE in arrays:
        raise DataError(f"{where}: expected an .npz file of named arrays, got a single array; use np.savez")
    return arrays


def _checked(where: str, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise DataError(f"{where}: expected images [n, 28, 28], got {list(images.shape)}; resize or reshape them")
    if images.dtype != np.uint8:
        raise DataError(f"{where}: expected uint8 images, 0 to 255, got {images.dtype}; scale and convert them")
    if labels.shape != images.shape[:1]:
        raise DataError(
            f"{where}: expected one label for each of {len(images)} images, got {list(labels.shape)}; "
            "do the two belong together?"
        )
    if not len(images):
        raise DataError(f"{where}: expected at least one image, got none; is the file the right one?")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{where}: expected integer labels, got {labels.dtype}; convert them")
    if labels.min() < 0 or labels.max() > 9:
        raise DataError(
            f"{where}: expected labels in 0..9, got {labels.min()} .. {labels.max()}; "
            "leave the other classes out, or renumber them"
        )
    return images, labels.astype(np.int32)
