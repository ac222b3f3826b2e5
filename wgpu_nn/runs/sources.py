"""The data of a run as configs: where they are and how they are split; what is made of them, prepare.py knows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import Field

from wgpu_nn.data import (
    ArrayDataset,
    Dataset,
    ImageFolder,
    Table,
    fetch_fashion_mnist,
    fetch_mnist,
    load_mnist,
    mapped,
    read_csv,
    read_jsonl,
    read_parquet,
    split,
)
from wgpu_nn.errors import DataError
from wgpu_nn.runs.arrays import items_of, read_arrays
from wgpu_nn.runs.kinds import Kind

Classes = Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Names:
    """Of classes and of the columns that are features, where the source has any."""

    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """Training and validation items (input, target), not standardised yet."""

    train: Dataset[Any]
    valid: Dataset[Any] | None
    names: Names = Names()


class DataPart(Kind):
    """Where data are, and what is held out of them."""

    standardise: bool = Field(
        default=True, description="inputs less their mean, by their deviation, of the training split"
    )
    limit: int | None = Field(default=None, gt=0, description="use so many items of each split only")

    @abstractmethod
    def read(self, numbers: bool) -> Found:
        """Return the data; targets are classes, or ``numbers``."""

    @abstractmethod
    def other(self, path: str, numbers: bool, names: Names) -> Dataset[Any]:
        """Return the items of another ``path``, with the ``names`` of the training data; all, or its test part."""


class SplitPart(DataPart):
    """Data that come in one piece, or in two."""

    path: str = Field(kw_only=True, description="file or folder")
    valid_path: str | None = Field(default=None, description="validation data of their own, in place of a split")
    valid: float = Field(default=0.1, ge=0.0, lt=1.0, description="share held out for validation; 0 for none")
    stratify: bool = Field(default=False, description="hold out that share of each class")
    split_seed: int = Field(default=0, ge=0, description="of the split")

    def parts(self, whole: Dataset[Any], other: Dataset[Any] | None) -> tuple[Dataset[Any], Dataset[Any] | None]:
        """Return training and validation items."""
        if other is not None or self.valid == 0:
            return whole, other
        valid, train = split(whole, self.valid, self.split_seed, self.stratify)
        return train, valid


class MnistData(DataPart):
    """MNIST or a look-alike: 28 x 28 grey images of ten classes, which come with a test part; that is the validation."""

    kind: Literal["mnist"] = "mnist"
    path: str | None = Field(default=None, description="folder of IDX files, or .npz file; null downloads MNIST once")
    fashion: bool = Field(default=False, description="download Fashion-MNIST instead")

    def read(self, numbers: bool) -> Found:
        fetch = fetch_fashion_mnist if self.fashion else fetch_mnist
        train, test = fetch() if self.path is None else load_mnist(self.path)
        return Found(ArrayDataset(*train), ArrayDataset(*test), Names(tuple(str(i) for i in range(10))))

    def other(self, path: str, numbers: bool, names: Names) -> Dataset[Any]:
        if Path(path).is_dir():
            return ArrayDataset(*load_mnist(path)[1])
        arrays = read_arrays(path)
        return items_of(path, arrays, *(("x_test", "y_test") if "x_test" in arrays else ("x", "y")))


class ArraysData(SplitPart):
    """NumPy arrays: an .npz file with inputs and targets, or two .npy files."""

    kind: Literal["arrays"] = "arrays"
    inputs: str = Field(default="x", description="name of the inputs in .npz files")
    targets: str = Field(default="y", description="name of the targets in .npz files")
    targets_path: str | None = Field(default=None, description="file of the targets, where path is an .npy file")

    def read(self, numbers: bool) -> Found:
        arrays = read_arrays(self.path)
        if self.targets_path is not None:
            arrays = {self.inputs: next(iter(arrays.values()))}
            arrays[self.targets] = next(iter(read_arrays(self.targets_path).values()))
        whole = items_of(self.path, arrays, self.inputs, self.targets)
        other = None if self.valid_path is None else self.other(self.valid_path, numbers, Names())
        return Found(*self.parts(whole, other))

    def other(self, path: str, numbers: bool, names: Names) -> Dataset[Any]:
        return items_of(path, read_arrays(path), self.inputs, self.targets)


class ImagesData(SplitPart):
    """A folder of images for each class."""

    kind: Literal["images"] = "images"
    size: tuple[int, int] | None = Field(default=None, description="height and width to resize to; null: all are alike")
    channels: Literal[1, 3, 4] = Field(default=1, description="1 grey (for a cnn), 3 colour, 4 with transparency")
    skip_bad: bool = Field(default=False, description="leave out images that cannot be read")
    keep: bool = Field(default=True, description="decode images once and keep them in memory")

    def read(self, numbers: bool) -> Found:
        whole = self.folder(self.path, None)
        other = None if self.valid_path is None else self.folder(self.valid_path, whole.classes)
        train, valid = self.parts(whole, other)
        return Found(self.decoded(train), None if valid is None else self.decoded(valid), Names(whole.classes))

    def other(self, path: str, numbers: bool, names: Names) -> Dataset[Any]:
        return self.decoded(self.folder(path, names.classes))

    def folder(self, path: str, classes: Classes) -> ImageFolder:
        """Return the images of a folder as files."""
        return ImageFolder(path, self.size, self.channels, classes=classes, skip_bad=self.skip_bad)

    def decoded(self, files: Dataset[Any]) -> Dataset[Any]:
        """Return images as the model gets them, those of one channel as [height, width]."""
        data = ArrayDataset(*files[np.arange(len(files))]) if self.keep else files
        return mapped(data, _without_channel) if self.channels == 1 else data


class TablePart(SplitPart):
    """Rows of a file: one column is the target, others are features."""

    target: str = Field(kw_only=True, description="column to predict")
    features: tuple[str, ...] | None = Field(default=None, description="columns to predict from; null: all others")
    missing: float | None = Field(default=None, description="number for empty fields; null: they are bad")
    skip_bad: bool = Field(default=False, description="pass over bad rows")

    @abstractmethod
    def reader(self) -> Callable[..., Table]:
        """Return what reads files of this kind, by the arguments that ``read_csv`` and its like share."""

    def table(self, path: str, target: str | None, features: Classes, classes: Classes, numbers: bool) -> Table:
        """Return the rows of a file of this kind."""
        missing, skip_bad = self.missing, self.skip_bad
        return self.reader()(
            path, target, features, classes=classes, regression=numbers, missing=missing, skip_bad=skip_bad
        )

    def read(self, numbers: bool) -> Found:
        whole = self.table(self.path, self.target, self.features, None, numbers)
        names = Names(whole.classes, _columns(self.features, whole))
        other = None if self.valid_path is None else self.other(self.valid_path, numbers, names)
        return Found(*self.parts(whole, other), names)

    def other(self, path: str, numbers: bool, names: Names) -> Dataset[Any]:
        return self.table(path, self.target, names.features, names.classes or None, numbers)

    def rows(self, path: str, features: Sequence[str]) -> Table:
        """Return rows without a target."""
        return self.table(path, None, features, None, False)


class CsvData(TablePart):
    """A CSV file."""

    kind: Literal["csv"] = "csv"
    delimiter: str = Field(default=",", description="between fields")

    def reader(self) -> Callable[..., Table]:
        return partial(read_csv, delimiter=self.delimiter)


class ParquetData(TablePart):
    """A Parquet or Arrow file."""

    kind: Literal["parquet"] = "parquet"

    def reader(self) -> Callable[..., Table]:
        return read_parquet


class JsonlData(TablePart):
    """A file with a JSON object on each line."""

    kind: Literal["jsonl"] = "jsonl"

    def reader(self) -> Callable[..., Table]:
        return read_jsonl


AnyData: TypeAlias = Annotated[
    MnistData | CsvData | ParquetData | JsonlData | ImagesData | ArraysData, Field(discriminator="kind")
]


def _without_channel(items: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return items[0][:, 0], *items[1:]


def _columns(wanted: Sequence[str] | None, table: Table) -> tuple[str, ...]:
    """Return the columns that are features; a list of numbers is one column, which a table names number by number."""
    if wanted is not None:
        return tuple(wanted)
    return tuple(dict.fromkeys(name.rpartition("[")[0] if name.endswith("]") else name for name in table.names))


def check_targets(data: Dataset[Any], labels: np.ndarray, numbers: bool) -> None:
    """Raise DataError unless targets are classes, one for each item, or finite ``numbers``."""
    if numbers:
        known = labels.dtype.kind in "fiub"
        if not known or not np.isfinite(labels).all():
            raise DataError(
                f"data: expected finite numbers as targets of {len(data)} items, got "
                f"{'NaN or infinity among them' if known else labels.dtype}; correct them, or leave such items out"
            )
        return
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"data: expected a class for each of {len(data)} items as target, got {labels.dtype} {list(labels.shape)}; "
            "of numbers the loss is mse (--loss mse)"
        )
    if labels.min() < 0:
        raise DataError(f"data: expected classes from 0 on, got {labels.min()}; number the classes from 0")
