"""Columns to arrays: a chunk of rows at a time, with what is wrong with a bad one; what a table is, tables.py knows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from wgpu_nn.data.rows import BadRow, refuse_bad, shown
from wgpu_nn.errors import DataError

__all__ = ["Builder", "Chunk", "Classes", "Columns", "Reading"]

KEPT = 20  # bad rows that a table describes; it counts all
LARGEST = float(np.finfo(np.float32).max)

Classes: TypeAlias = "Sequence[str] | int | None"


@dataclass(frozen=True, slots=True)
class Reading:
    """How columns become features and a target; for what the fields mean see ``read_csv``."""

    target: str | None
    features: Sequence[str] | None
    classes: Classes
    regression: bool
    missing: float | None
    skip_bad: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that follow each other: the number that names each in messages, and their columns."""

    numbers: Sequence[int]
    columns: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a table comes from: its column names, chunks with bad rows between them, and how messages name places.

    ``text`` says that numbers are written as text, as in CSV, and not as themselves.
    """

    source: str
    unit: str
    names: Sequence[str]
    chunks: Iterable[Chunk | BadRow]
    text: bool


@dataclass(slots=True)
class Builder:
    """Takes chunk after chunk, finds their bad rows, and keeps the others as arrays."""

    columns: Columns
    reading: Reading
    features: tuple[str, ...]
    text_target: bool = False
    widths: dict[str, int] = field(default_factory=dict)
    x: list[np.ndarray] = field(default_factory=list)
    y: list[np.ndarray] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    skipped: int = 0

    def refuse(self, bad: BadRow) -> None:
        """Count a bad row; raises DataError unless they are passed over."""
        if not self.reading.skip_bad:
            refuse_bad(bad)
        self.skipped += 1
        if len(self.bad) < KEPT:
            self.bad.append(bad)

    def add(self, chunk: Chunk) -> None:
        """Convert the rows of ``chunk``, all at once, or one by one if that fails."""
        if not self.x and not self._begin(chunk):
            return
        converted = self._converted(chunk)
        if converted is not None:
            self._keep(*converted)
            return
        for i, number in enumerate(chunk.numbers):
            row = Chunk([number], {name: [values[i]] for name, values in chunk.columns.items()})
            reason = self._why_bad(row)
            if reason:
                self.refuse(
                    BadRow(f"{self.columns.source}, {self.columns.unit} {number}, column {reason[0]!r}", reason[1])
                )
                continue
            made = self._converted(row)
            if made is None:
                raise DataError(f"{self.columns.source}, {self.columns.unit} {number}: expected a row like the others")
            self._keep(*made)

    def _keep(self, x: np.ndarray, y: np.ndarray | None) -> None:
        self.x.append(x)
        if y is not None:
            self.y.append(y)

    def _begin(self, chunk: Chunk) -> bool:
        """Learn from the first rows whether the target is text, and how many numbers each feature has."""
        if not chunk.numbers:
            return False
        if self.reading.target is not None and not self.y:
            named = self.reading.classes is not None and not isinstance(self.reading.classes, int)
            values = [value for value in chunk.columns[self.reading.target] if not _absent(value)]
            self.text_target = named or (
                bool(values) and not any(_number(value, self.columns.text) is not None for value in values)
            )
        for name in self.features:
            first = next((value for value in chunk.columns[name] if not _absent(value)), 0)
            self.widths.setdefault(name, _width(first))
        return True

    def _converted(self, chunk: Chunk) -> tuple[np.ndarray, np.ndarray | None] | None:
        """Return features and target of rows that are all good, or None."""
        parts: list[np.ndarray] = []
        for name in self.features:
            values = chunk.columns[name]
            if self.reading.missing is not None:
                fill = str(self.reading.missing) if self.columns.text else self.reading.missing
                values = [fill if _absent(value) else value for value in values]
            part = _numbers(values, self.columns.text)
            if part is None or part.size != len(chunk.numbers) * self.widths[name]:
                return None
            parts.append(part.reshape(len(chunk.numbers), -1))
        with np.errstate(over="ignore"):  # infinity says it
            x = np.concatenate(parts, 1).astype(np.float32)
        if not np.isfinite(x).all():
            return None
        if self.reading.target is None:
            return x, None
        values = chunk.columns[self.reading.target]
        if self.text_target:
            if not all(isinstance(value, str) and not _absent(value) for value in values):
                return None
            texts = np.array([value.strip() for value in values], object)
            if isinstance(self.reading.classes, Sequence) and not set(texts) <= set(self.reading.classes):
                return None
            return x, texts
        y = _numbers(values, self.columns.text)
        if y is None or y.ndim != 1 or not (np.abs(y) <= LARGEST).all():
            return None
        if isinstance(self.reading.classes, int) and ((y != np.floor(y)) | (y < 0) | (y >= self.reading.classes)).any():
            return None
        return x, y

    def _why_bad(self, row: Chunk) -> tuple[str, str] | None:
        """Return the first column of a row that is not as it should be, and why."""
        for name in self.features:
            value = row.columns[name][0]
            width = self.widths[name]
            if _absent(value):
                if self.reading.missing is None:
                    return name, "expected a number, got nothing; give missing=... to put one there"
                continue
            number = _numbers([value], self.columns.text)
            if number is None:
                return name, f"expected {'a number' if width == 1 else f'{width} numbers'}, got {shown(value)}"
            if number.size != width:
                return name, f"expected {width} number{'s' * (width > 1)} as in the first row, got {number.size}"
            if not (np.abs(number) <= LARGEST).all():
                return name, f"expected a finite number of single precision, got {shown(value)}"
        if self.reading.target is None:
            return None
        value = row.columns[self.reading.target][0]
        if _absent(value):
            return self.reading.target, "expected a target, got nothing"
        if self.text_target:
            if not isinstance(value, str):
                return self.reading.target, f"expected a text, got {shown(value)}"
            if isinstance(self.reading.classes, Sequence) and value.strip() not in self.reading.classes:
                return self.reading.target, f"expected one of {shown(list(self.reading.classes))}, got {shown(value)}"
            return None
        number = _number(value, self.columns.text)
        if number is None or not abs(number) <= LARGEST:
            return self.reading.target, f"expected a finite number of single precision, got {shown(value)}"
        if isinstance(self.reading.classes, int) and not (number == int(number) and 0 <= number < self.reading.classes):
            return self.reading.target, f"expected a class in 0 .. {self.reading.classes - 1}, got {shown(value)}"
        return None


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _width(value: object) -> int:
    return len(value) if isinstance(value, list | tuple) else 1


def _numbers(values: Any, text: bool) -> np.ndarray | None:
    """Return values as float64, or None unless all are numbers; only CSV writes them as text."""
    try:
        if text:
            written = "".join(values)
            # float() reads 1_000 and the digits of all scripts, which no other reader of CSV does.
            plain = "_" not in written and written.isascii()
            return np.fromiter(map(float, values), np.float64, len(values)) if plain else None
        array = np.asarray(values)
        return array.astype(np.float64) if array.dtype.kind in "iufb" else None
    except (ValueError, TypeError, OverflowError):
        return None


def _number(value: object, text: bool) -> float | None:
    numbers = _numbers([value], text)
    return None if numbers is None or numbers.size != 1 else float(numbers[0])
