"""Rows of SQLite data bases: as a stream, as a table in memory, or by index from the file; writes none."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from wgpu_nn.data.columns import Classes, Reading
from wgpu_nn.data.dataset import Index, Item
from wgpu_nn.data.rows import BadRow, Row, Rows
from wgpu_nn.data.tables import Table, rows_table
from wgpu_nn.errors import DataError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SqliteDataset", "SqliteRows", "read_sqlite"]

AT_ONCE = 500  # values that one statement may have, on any build of SQLite


def _connected(source: str, path: Path) -> sqlite3.Connection:
    """Open a data base for reading only: neither it nor a missing one is written to.

    Any thread may close it: which one collects garbage, nobody knows. One uses it.
    """
    import sqlite3

    if not path.is_file():
        raise DataError(f"{source}: expected a SQLite file, got no such file; is the path right?")
    try:
        return sqlite3.connect(f"file:{quote(path.absolute().as_posix())}?mode=ro", uri=True, check_same_thread=False)
    except sqlite3.Error as error:
        raise DataError(f"{source}: expected a readable SQLite file, got {error}") from error


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class SqliteRows(Rows):
    """The rows of a query, or of a table (``SELECT * FROM`` it): dicts by column, of what SQLite has. Read-only.

    Rows are numbered in the order in which they come: give a query that must be the same each time an ORDER BY. Raises
    DataError for files that are missing or no data base, and for queries that fail.
    """

    __slots__ = ("names", "parameters", "path", "query")

    def __init__(
        self, path: str | os.PathLike[str], query: str, parameters: Sequence[Any] = (), *, skip_bad: bool = False
    ) -> None:
        super().__init__(os.fspath(path), skip_bad)
        self.path, self.parameters = Path(path), tuple(parameters)
        self.query = query if " " in query.strip() else f"SELECT * FROM {_quoted(query.strip())} ORDER BY rowid"
        with closing(self._rows()) as rows:
            names = next(rows)
        self.names: tuple[str, ...] = names

    def _rows(self) -> Generator[tuple[Any, ...], None, None]:
        """Yield the names of the columns, then the rows."""
        import sqlite3

        with closing(_connected(self.source, self.path)) as connection:
            try:
                cursor = connection.execute(self.query, self.parameters)
                yield tuple(column[0] for column in cursor.description or ())
                yield from cursor
            except (sqlite3.Error, UnicodeDecodeError) as error:  # names of a damaged schema
                raise DataError(
                    f"{self.source}: expected a data base that answers {self.query!r}, got {error}; "
                    "are the file and the names right?"
                ) from error

    def lazily(self) -> Iterator[tuple[int, Callable[[], Row | BadRow]]]:
        """Iterate over all rows, as their numbers from 1 and functions that make them."""
        with closing(self._rows()) as rows:
            names = next(rows)
            for number, row in enumerate(rows, 1):
                yield number, partial(_named, names, row)


def _named(names: tuple[str, ...], row: tuple[Any, ...]) -> Row:
    return dict(zip(names, row, strict=True))


def read_sqlite(
    path: str | os.PathLike[str],
    query: str,
    target: str | None = None,
    features: Sequence[str] | None = None,
    *,
    parameters: Sequence[Any] = (),
    classes: Classes = None,
    regression: bool = False,
    missing: float | None = None,
    skip_bad: bool = False,
) -> Table:
    """Read the rows of a query, or of a table, as ``read_csv`` reads those of a CSV file; NULL is a missing value."""
    rows = SqliteRows(path, query, parameters, skip_bad=skip_bad)
    return rows_table(rows, rows.names, False, Reading(target, features, classes, regression, missing, skip_bad))


class _Own:
    """A thread's connection, closed when the thread or the data set is gone."""

    __slots__ = ("connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


class SqliteDataset:
    """The rows of a table that stays on disk: items are the ``columns`` as arrays, in the order of the table's row ids.

    Numbers are int64 or float64 scalars, texts are texts, and blobs are uint8 ``[bytes]``, or arrays of ``blobs``' type.
    Each thread and each worker process has a connection of its own. Raises DataError for files and names that are
    not there, tables without rows, and, from the items, for NULL.
    """

    def __init__(self, path: str | os.PathLike[str], table: str, columns: Sequence[str], blobs: str = "uint8") -> None:
        self.path, self.table, self.columns, self.blobs = Path(path), table, tuple(columns), np.dtype(blobs)
        self._local = threading.local()
        if not columns:
            raise DataError(f"SqliteDataset: {path}: expected at least one column, got none")
        self._ids = np.array(
            [row[0] for row in self._all(f"SELECT rowid FROM {_quoted(table)} ORDER BY rowid")], np.int64
        )
        # NOTE: an unknown name in double quotes is a text to SQLite, not an error: the names are compared here.
        known = [row[1] for row in self._all(f"PRAGMA table_info({_quoted(table)})")]
        if not set(columns) <= set(known):
            raise DataError(
                f"SqliteDataset: {path}: expected columns of {known}, got {list(columns)}; is a name wrong?"
            )
        if not len(self._ids):
            raise DataError(f"SqliteDataset: {path}: expected at least one row in {table!r}, got none")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _local=threading.local())

    def _all(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        import sqlite3

        own: _Own | None = vars(self._local).get("own")
        if own is None:
            own = self._local.own = _Own(_connected(f"SqliteDataset: {self.path}", self.path))
        try:
            return own.connection.execute(query, parameters).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:  # names of a damaged schema
            raise DataError(
                f"SqliteDataset: {self.path}: expected a data base with {self.table!r}, got {error}"
            ) from error

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: Index, /) -> Item:
        ids = self._ids[index]
        names = ", ".join(map(_quoted, self.columns))
        found: dict[int, tuple[Any, ...]] = {}
        flat = ids.reshape(-1).tolist()
        for start in range(0, len(flat), AT_ONCE):
            part = flat[start : start + AT_ONCE]
            marks = ", ".join("?" * len(part))
            rows = self._all(f"SELECT rowid, {names} FROM {_quoted(self.table)} WHERE rowid IN ({marks})", part)
            found |= {row[0]: row[1:] for row in rows}
        gone = [i for i in flat if i not in found]
        if gone:
            raise DataError(
                f"SqliteDataset: {self.path}: expected row {gone[0]} of {self.table!r}, which is gone since"
            )
        items = [tuple(self._array(i, k, value) for k, value in enumerate(found[i])) for i in flat]
        return items[0] if ids.ndim == 0 else tuple(np.stack(arrays) for arrays in zip(*items, strict=True))

    def _array(self, row: int, column: int, value: object) -> np.ndarray:
        place = f"SqliteDataset: {self.path}, row {row}, column {self.columns[column]!r}"
        if value is None:
            raise DataError(f"{place}: expected a value, got NULL; leave such rows out of the table, or fill them")
        if isinstance(value, bytes):
            if len(value) % self.blobs.itemsize:
                raise DataError(f"{place}: expected a blob of {self.blobs}, got {len(value)} bytes")
            return np.frombuffer(value, self.blobs)
        return np.asarray(value)
