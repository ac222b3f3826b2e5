"""Parquet and Arrow files, read by pyarrow: as a stream of rows, or as a table in memory; writes none."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from wgpu_nn.data.columns import Chunk, Classes, Columns, Reading
from wgpu_nn.data.rows import BadRow, Row, Rows
from wgpu_nn.data.tables import Table, table_of
from wgpu_nn.errors import DataError, missing_extra

__all__ = ["ParquetRows", "read_parquet"]

BATCH = 65_536  # rows that are decoded together
TOGETHER = 512  # rows that become Python values together


def _batches(source: str, path: Path, columns: Sequence[str] | None) -> Iterator[Any]:
    """Iterate over the record batches of a Parquet file, or of an Arrow file or stream (Feather), by its first bytes."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise missing_extra("Parquet", "pyarrow", "data") from error
    try:
        # NOTE: not Python's own file: asked for as many bytes as a damaged length claims, it takes that memory first.
        with pa.OSFile(os.fspath(path)) as file:
            head = file.read(6)
            file.seek(0)
            if head[:4] == b"PAR1":
                with pq.ParquetFile(file) as parquet:
                    _present(source, parquet.schema_arrow.names, columns)
                    for batch in parquet.iter_batches(BATCH, columns=None if columns is None else list(columns)):
                        batch.validate(full=True)
                        yield batch
                return
            reader = pa.ipc.open_file(file) if head == b"ARROW1" else pa.ipc.open_stream(file)
            _present(source, reader.schema.names, columns)
            every = (
                (reader.get_batch(i) for i in range(reader.num_record_batches)) if head == b"ARROW1" else iter(reader)
            )
            for batch in every:
                batch.validate(
                    full=True
                )  # NOTE: damaged offsets are followed otherwise, to a fault that ends the process
                yield batch if columns is None else batch.select(list(columns))
    except DataError:
        raise
    except OSError as error:  # pyarrow's errors about content are some, too
        why = error.strerror or error
        raise DataError(
            f"{source}: expected a readable Parquet or Arrow file, got {why}; is the path right?"
        ) from error
    except (pa.ArrowException, UnicodeDecodeError) as error:  # names of a damaged schema
        raise DataError(f"{source}: expected a Parquet or Arrow file, got {error}; is the file whole?") from error


def _present(source: str, names: Sequence[str], columns: Sequence[str] | None) -> None:
    absent = [name for name in columns or () if name not in names]
    if absent:
        raise DataError(f"{source}: expected columns of {list(names)}, got {absent}; name those that are there")


class ParquetRows(Rows):
    """The rows of a Parquet or Arrow file: dicts of Python values, decoded some at a time; ``columns`` are read only.

    Raises DataError for files that are missing or damaged and columns that are not there; MissingExtraError without pyarrow.
    """

    __slots__ = ("columns", "path")

    def __init__(self, path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> None:
        super().__init__(os.fspath(path), skip_bad=False)
        self.path, self.columns = Path(path), None if columns is None else tuple(columns)
        next(_batches(self.source, self.path, self.columns), None)

    def lazily(self) -> Iterator[tuple[int, Callable[[], Row | BadRow]]]:
        """Iterate over all rows, as their numbers from 1 and functions that make them."""
        number = 0
        for batch in _batches(self.source, self.path, self.columns):
            for start in range(0, batch.num_rows, TOGETHER):
                part = batch.slice(start, TOGETHER)
                made = cache(part.to_pylist)  # all of them with the first that is wanted, none if none is
                for i in range(part.num_rows):
                    number += 1
                    yield number, partial(_row, made, i)


def _row(made: Callable[[], list[Row]], i: int) -> Row:
    return made()[i]


def read_parquet(
    path: str | os.PathLike[str],
    target: str | None = None,
    features: Sequence[str] | None = None,
    *,
    classes: Classes = None,
    regression: bool = False,
    missing: float | None = None,
    skip_bad: bool = False,
) -> Table:
    """Read a Parquet or Arrow file as ``read_csv`` reads CSV; a null is a missing value, and only columns asked for are read.

    A feature may be a list of numbers, as many in each row. Raises MissingExtraError without pyarrow.
    """
    source = os.fspath(path)
    wanted = None if features is None else [*features, *([] if target is None else [target])]
    batches = _batches(source, Path(path), wanted)
    first = next(batches, None)
    if first is None:
        raise DataError(f"{source}: expected at least one row, got none; is the file the right one?")

    def chunks() -> Iterator[Chunk | BadRow]:
        number, batch = 1, first
        while batch is not None:
            numbers = range(number, number + batch.num_rows)
            yield Chunk(numbers, {name: _values(batch.column(name)) for name in batch.schema.names})
            number += batch.num_rows
            batch = next(batches, None)

    reading = Reading(target, features, classes, regression, missing, skip_bad)
    return table_of(Columns(source, "row", first.schema.names, chunks(), text=False), reading)


def _values(column: Any) -> np.ndarray | list[Any]:
    """Return numbers without nulls as an array, and anything else as Python's values."""
    import pyarrow as pa

    kind = column.type
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return column.to_numpy(zero_copy_only=False) if numeric and not column.null_count else column.to_pylist()
