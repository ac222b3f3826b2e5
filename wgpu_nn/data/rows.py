"""Rows of CSV and JSON-lines files as streams, each bad one with its file, line and column; makes no arrays of them."""

from __future__ import annotations

import csv
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO, TypeAlias

import numpy as np

from wgpu_nn.errors import DataError

__all__ = ["BadRow", "Checked", "CsvRows", "JsonRows", "Row", "Rows"]

Row: TypeAlias = dict[str, Any]
SHOWN = 80  # characters of a bad value


@dataclass(frozen=True, slots=True)
class BadRow:
    """What is wrong with one row, and where it stands."""

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Checked:
    """What a walk over all rows found: how many are good, and what is wrong with the others."""

    good: int
    bad: tuple[BadRow, ...]


class Rows(ABC):
    """A stream of rows, dicts by column; a bad one is a DataError that names its place, or passed over (``skip_bad``)."""

    __slots__ = ("skip_bad", "source")

    def __init__(self, source: str, skip_bad: bool) -> None:
        self.source, self.skip_bad = source, skip_bad

    unit = "row"  # what places count

    @abstractmethod
    def lazily(self) -> Iterator[tuple[int, Callable[[], Row | BadRow]]]:
        """Iterate over all rows, as the number that names each and a function that makes it."""

    def place(self, number: int) -> str:
        """Return how messages name a row."""
        return f"{self.source}, {self.unit} {number}"

    def __iter__(self) -> Iterator[Row]:
        return self.select(lambda _: True)

    def select(self, wanted: Callable[[int], bool]) -> Iterator[Row]:
        """Iterate over the rows i for which ``wanted(i)``; others are made only to know whether they are bad."""
        i = 0
        for _, make in self.lazily():
            if self.skip_bad:
                row = make()
                if isinstance(row, BadRow):
                    continue
                if wanted(i):
                    yield row
            elif wanted(i):
                yield refuse_bad(make())
            i += 1

    def check(self) -> Checked:
        """Read everything once, and say how many rows are good and what is wrong with the others."""
        good, bad = 0, list[BadRow]()
        for _, make in self.lazily():
            row = make()
            if isinstance(row, BadRow):
                bad.append(row)
            else:
                good += 1
        return Checked(good, tuple(bad))


def refuse_bad(row: Row | BadRow) -> Row:
    """Return a good row; raises DataError for a bad one."""
    if isinstance(row, BadRow):
        raise DataError(f"{row}; correct it, or pass over bad rows with skip_bad=True")
    return row


def shown(value: object) -> str:
    """Return a value for a message, cut where it is long."""
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _opened(source: str, path: Path, encoding: str) -> TextIO:
    try:
        # utf-8-sig takes away the mark that spreadsheets put first, and reads what has none.
        return open(path, encoding="utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding, newline="")
    except OSError as error:
        raise DataError(f"{source}: expected a readable file, got {error.strerror}; is the path right?") from error
    except LookupError as error:
        raise DataError(f"{source}: expected the name of an encoding, got {encoding!r}; 'utf-8' is usual") from error


def _not_text(source: str, line: int, encoding: str, error: UnicodeDecodeError) -> DataError:
    return DataError(
        f"{source}, line {line} or after: expected text in {encoding}, got byte 0x{error.object[error.start]:02x} "
        f"({error.reason}); name the encoding ('cp1252', 'utf-16'), or convert the file"
    )


class CsvRows(Rows):
    """The rows of a CSV file: dicts of strings. ``names`` are the columns; without them the first line has them.

    Quotes and line ends are those of RFC 4180, and empty lines are passed over. Raises DataError, here, for a file that
    is missing, empty, or has columns of one name; from the iteration for rows of too few or too many fields, open
    quotes, and bytes that are no text.
    """

    __slots__ = ("delimiter", "encoding", "names", "path", "_named")

    unit = "line"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        delimiter: str = ",",
        names: Sequence[str] | None = None,
        encoding: str = "utf-8",
        skip_bad: bool = False,
    ) -> None:
        super().__init__(os.fspath(path), skip_bad)
        self.path, self.delimiter, self.encoding = Path(path), delimiter, encoding
        if len(delimiter) != 1:
            raise DataError(f"{self.source}: expected a delimiter of one character, got {delimiter!r}; ',' is usual")
        self._named = names is not None
        self.names = tuple(names) if names is not None else self._header()
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise DataError(
                f"{self.source}, line 1: expected columns of different names, got {repeated} more than once"
            )

    def _header(self) -> tuple[str, ...]:
        with closing(self._lines()) as lines:
            first = next(lines, None)
        if first is None:
            raise DataError(f"{self.source}: expected a line of column names, got an empty file; is it the right one?")
        names = first[1]
        if isinstance(names, BadRow):
            raise DataError(f"{names}; is it a CSV file?")
        return tuple(name.strip() for name in names)

    def _lines(self) -> Generator[tuple[int, list[str] | BadRow], None, None]:
        """Iterate over the lines that are not empty, with their numbers, the first being 1."""
        line = 1
        with _opened(self.source, self.path, self.encoding) as file:
            reader = csv.reader(file, delimiter=self.delimiter, strict=True)
            try:
                while True:
                    line = reader.line_num + 1
                    try:
                        fields = next(reader, None)
                    except csv.Error as error:
                        yield line, BadRow(self.place(line), f"expected a row of CSV, got {error}")
                        continue
                    if fields is None:
                        return
                    if fields:
                        yield line, fields
            except UnicodeDecodeError as error:
                raise _not_text(self.source, line, self.encoding, error) from error

    def lazily(self) -> Iterator[tuple[int, Callable[[], Row | BadRow]]]:
        """Iterate over all rows, as the first of each one's lines and a function that makes it."""
        with closing(self._lines()) as lines:
            if not self._named:
                next(lines, None)
            for line, fields in lines:
                yield line, partial(self._row, line, fields)

    def _row(self, line: int, fields: list[str] | BadRow) -> Row | BadRow:
        if isinstance(fields, BadRow):
            return fields
        if len(fields) != len(self.names):
            return BadRow(self.place(line), f"expected {len(self.names)} fields, got {len(fields)}: {shown(fields)}")
        return dict(zip(self.names, fields, strict=True))


class JsonRows(Rows):
    """The rows of a file with a JSON object on each line: dicts of what JSON has. Empty lines are passed over.

    Raises DataError, here, for a file that is missing; from the iteration for lines that are no JSON object, and bytes
    that are no text.
    """

    __slots__ = ("encoding", "path")

    unit = "line"

    def __init__(self, path: str | os.PathLike[str], *, encoding: str = "utf-8", skip_bad: bool = False) -> None:
        super().__init__(os.fspath(path), skip_bad)
        self.path, self.encoding = Path(path), encoding
        _opened(self.source, self.path, encoding).close()

    def lazily(self) -> Iterator[tuple[int, Callable[[], Row | BadRow]]]:
        """Iterate over all rows, as the number of each one's line and a function that makes it."""
        number = 1
        with _opened(self.source, self.path, self.encoding) as file:
            try:
                for number, line in enumerate(file, 1):
                    if not line.isspace():
                        yield number, partial(self._row, number, line)
            except UnicodeDecodeError as error:
                raise _not_text(self.source, number, self.encoding, error) from error

    def _row(self, number: int, line: str) -> Row | BadRow:
        try:
            row = json.loads(line.rstrip("\r\n"))
        except ValueError as error:
            column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
            return BadRow(
                f"{self.place(number)}{column}", f"expected a JSON object, got {error}: {shown(line.strip())}"
            )
        except RecursionError:
            return BadRow(self.place(number), "expected a JSON object, got one nested too deeply")
        if not isinstance(row, dict):
            return BadRow(self.place(number), f"expected a JSON object, got {shown(row)}")
        return row
