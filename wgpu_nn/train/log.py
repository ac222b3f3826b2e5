"""metrics.jsonl: a JSON object a line, appended to while a run goes on; knows nothing of what is measured."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from wgpu_nn.errors import RecordError
from wgpu_nn.record import write_atomic

Line = Mapping[str, Any]


class Log:
    """Appends lines. Those of one call reach the file in one write, so a kill tears the last line at most."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def write(self, lines: Iterable[Line]) -> None:
        """Append ``lines``; raises RecordError when the file cannot be written."""
        text = "".join(_text(line) + "\n" for line in lines)
        if not text:
            return
        try:
            with open(self.path, "ab") as file:
                file.write(text.encode())
        except OSError as error:
            raise RecordError(
                f"log: expected to append to {self.path}, got {error.strerror}; may you write there, is the disk full?"
            ) from error

    def rewind(self, epoch: int, step: int) -> None:
        """Drop what was written after a checkpoint: step lines after ``step``, lines of epochs after the ``epoch``-th.

        The resumed run writes them again. A line torn by a kill goes too.
        """
        if self.path.exists():
            kept = [
                line
                for line in read_log(self.path)
                if (line["epoch"] <= epoch if line["kind"] == "epoch" else line["step"] <= step)
            ]
            write_atomic(self.path, "".join(_text(line) + "\n" for line in kept).encode())


_encode = json.JSONEncoder(allow_nan=False).encode  # json.dumps would make one for each line

# JSON has no numbers for these.
_WORDS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def plain(value: object) -> Any:
    """Return ``value`` with NaN and the infinities as the words "nan", "inf" and "-inf"."""
    if isinstance(value, Mapping):
        return {key: plain(x) for key, x in cast(Mapping[str, object], value).items()}
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value


def _text(line: Line) -> str:
    try:
        return _encode(line)
    except ValueError:  # rare, and a look at each number would take longer than writing the line
        return _encode(plain(line))


def _numbers(value: object) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(x) for key, x in cast(dict[str, object], value).items()}
    return _WORDS.get(value, value) if isinstance(value, str) else value


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the lines of a metrics file, without a last one that a kill has torn.

    The words for NaN and the infinities come back as numbers. Raises RecordError, naming the line, for what is no such
    file.
    """
    where = f"read_log: {os.fspath(path)}"
    try:
        parts = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise RecordError(f"{where}: expected a readable file, got {error.strerror}; is the path right?") from error
    lines: list[dict[str, Any]] = []
    for number, part in enumerate(parts[:-1], start=1):  # after the last newline: nothing, or a torn line
        try:
            line: object = json.loads(part)
        except (ValueError, RecursionError):
            line = None
        found = cast(dict[str, Any], line) if isinstance(line, dict) else {}
        if type(found.get("kind")) is not str or not type(found.get("epoch")) is type(found.get("step")) is int:
            raise RecordError(
                f"{where}: line {number}: expected an object with a kind, and whole numbers for epoch and step, "
                f"got {part[:80]!r}"
            )
        lines.append(_numbers(line))
    return lines
