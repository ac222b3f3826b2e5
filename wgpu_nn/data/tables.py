"""Tables: columns of numbers as features, one as the target, from rows of any source; how files are read, rows.py knows."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wgpu_nn.data.columns import Builder, Chunk, Classes, Columns, Reading
from wgpu_nn.data.dataset import Index, Item, Source
from wgpu_nn.data.rows import BadRow, CsvRows, JsonRows, Rows, shown
from wgpu_nn.errors import DataError

__all__ = ["Table", "read_csv", "read_jsonl", "rows_table", "table_of"]

CHUNK = 4096  # rows that are converted together


@dataclass(frozen=True, slots=True, eq=False)
class Table(Source):
    """A data set of rows: items are (features float32 ``[k]``, target), or (features,) without a target.

    The target is int32 for classes and float32 for numbers; ``classes`` are their names where the column has text.
    ``bad`` describes the first rows that were passed over, and ``skipped`` counts them.
    """

    x: np.ndarray
    y: np.ndarray | None
    names: tuple[str, ...]
    classes: tuple[str, ...] = ()
    bad: tuple[BadRow, ...] = ()
    skipped: int = 0

    @property
    def in_memory(self) -> bool:
        return True

    @property
    def labels(self) -> np.ndarray:
        if self.y is None:
            raise DataError("Table: expected a table with a target column, got one without; name it: target='...'")
        return self.y

    def take(self, indices: np.ndarray) -> Table:
        """Return the rows ``indices``, copied."""
        return replace(self, x=self.x[indices], y=None if self.y is None else self.y[indices])

    def standardised(self, by: Table | None = None) -> Table:
        """Return features less their mean, divided by their standard deviation, both of ``by``: the training rows, as a rule.

        A feature that is the same everywhere becomes 0. Raises DataError where the two have other features.
        """
        of = self if by is None else by
        if of.names != self.names:
            raise DataError(f"standardised: expected a table of the features {self.names}, got {of.names}")
        x = of.x.astype(np.float64)
        deviation = x.std(0)
        return replace(self, x=((self.x - x.mean(0)) / np.where(deviation == 0, 1, deviation)).astype(np.float32))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Index, /) -> Item:
        arrays = (self.x,) if self.y is None else (self.x, self.y)
        return tuple(np.asarray(array[index, ...]) for array in arrays)


def table_of(columns: Columns, reading: Reading) -> Table:
    """Return the table of ``columns``."""
    source, target, features = columns.source, reading.target, reading.features
    wanted = tuple(features) if features is not None else tuple(name for name in columns.names if name != target)
    absent = [name for name in (*wanted, *([] if target is None else [target])) if name not in columns.names]
    if absent or not wanted:
        raise DataError(
            f"{source}: expected columns {list(columns.names)} as features and target, got {absent or 'no feature'}; "
            "name those that are there"
        )
    builder = Builder(columns, reading, wanted)
    for chunk in columns.chunks:
        if isinstance(chunk, BadRow):
            builder.refuse(chunk)
        else:
            builder.add(chunk)
    if not builder.x:
        skipped = f" and {builder.skipped} bad ones, the first {builder.bad[0]}" if builder.bad else ""
        raise DataError(f"{source}: expected at least one row, got none{skipped}; is the file the right one?")
    x = np.concatenate(builder.x)
    names = tuple(
        name if builder.widths[name] == 1 else f"{name}[{i}]" for name in wanted for i in range(builder.widths[name])
    )
    y = np.concatenate(builder.y) if builder.y else None
    found, y = _targets(source, str(target), y, reading.classes, reading.regression)
    return Table(x, y, names, found, tuple(builder.bad), builder.skipped)


def _targets(
    source: str, target: str, y: np.ndarray | None, classes: Classes, regression: bool
) -> tuple[tuple[str, ...], np.ndarray | None]:
    """Return the names of the classes, and the targets as int32 classes or float32 numbers."""
    if y is None:
        return (), None
    if y.dtype == object:
        if regression:
            raise DataError(f"{source}: expected numbers in the target {target!r}, got texts; leave regression out")
        names = tuple(classes) if isinstance(classes, Sequence) else tuple(sorted(set(y)))
        if isinstance(classes, int) and len(names) > classes:
            raise DataError(
                f"{source}: expected {classes} classes in the target {target!r}, got {len(names)}: {shown(names)}; "
                "is one of them misspelt?"
            )
        places = {name: i for i, name in enumerate(names)}
        return names, np.array([places[name] for name in y], np.int32)
    if regression or (y != np.floor(y)).any():
        return (), y.astype(np.float32)
    if y.min() < 0 or y.max() >= 2**31:
        raise DataError(
            f"{source}: expected classes from 0 on in the target {target!r}, got {y.min():g} .. {y.max():g}; "
            "renumber them, or take regression=True for numbers"
        )
    return (), y.astype(np.int32)


def _chunks(rows: Rows, names: Sequence[str]) -> Iterator[Chunk | BadRow]:
    made = ((number, make()) for number, make in rows.lazily())
    while batch := list(itertools.islice(made, CHUNK)):
        good = [(number, row) for number, row in batch if not isinstance(row, BadRow)]
        yield from (row for _, row in batch if isinstance(row, BadRow))
        yield Chunk([n for n, _ in good], {name: [row.get(name) for _, row in good] for name in names})


def rows_table(rows: Rows, names: Sequence[str], text: bool, reading: Reading) -> Table:
    """Return the table of ``rows`` with the columns ``names``; ``text`` says that numbers are written as text."""
    return table_of(Columns(rows.source, rows.unit, names, _chunks(rows, names), text), reading)


def read_csv(
    path: str | os.PathLike[str],
    target: str | None = None,
    features: Sequence[str] | None = None,
    *,
    classes: Classes = None,
    regression: bool = False,
    missing: float | None = None,
    skip_bad: bool = False,
    delimiter: str = ",",
    names: Sequence[str] | None = None,
    encoding: str = "utf-8",
) -> Table:
    """Read a CSV file: the column ``target`` as classes or numbers, ``features`` (all others) as numbers.

    A target of texts is classes by name, sorted, or in the order of ``classes``; one of whole numbers is classes too,
    ``classes`` of them, unless ``regression``; any other is numbers. A field that is empty is bad unless ``missing`` says what
    to put there; so are numbers that are not finite, texts among numbers, and classes that are not in ``classes``.
    ``names`` are the columns of a file whose first line has none. Raises DataError for files as ``CsvRows`` does, columns that
    are not there, and the first bad row, with its line and column; with ``skip_bad`` they are passed over and counted.
    """
    rows = CsvRows(path, delimiter=delimiter, names=names, encoding=encoding, skip_bad=skip_bad)
    return rows_table(rows, rows.names, True, Reading(target, features, classes, regression, missing, skip_bad))


def read_jsonl(
    path: str | os.PathLike[str],
    target: str | None = None,
    features: Sequence[str] | None = None,
    *,
    classes: Classes = None,
    regression: bool = False,
    missing: float | None = None,
    skip_bad: bool = False,
    encoding: str = "utf-8",
) -> Table:
    """Read a file with a JSON object on each line, as ``read_csv`` reads CSV; the first line has the names of all columns.

    A feature may be a list of numbers, as many in each row: all of them are features.
    """
    rows = JsonRows(path, encoding=encoding, skip_bad=skip_bad)
    first = next((row for row in (make() for _, make in rows.lazily()) if not isinstance(row, BadRow)), {})
    return rows_table(rows, tuple(first), False, Reading(target, features, classes, regression, missing, skip_bad))
