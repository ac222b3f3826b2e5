"""Other forms of a run's numbers than its JSON lines: CSV, and TensorBoard's event files; both are callbacks."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wgpu_nn.errors import missing_extra
from wgpu_nn.record import write_atomic
from wgpu_nn.train.callbacks import Callback
from wgpu_nn.train.history import EpochRecord

if TYPE_CHECKING:
    from wgpu_nn.train.session import Result, Session


class CsvLogger(Callback):
    """Keeps the epochs of a run in the CSV file ``path``: a row each, a column for each number of either split.

    The file is replaced as a whole after each epoch, so that it is right after a resume too. Raises RecordError when it
    cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_begin(self, session: Session) -> None:
        """Write the epochs there are, and so find out whether the file can be written."""
        self._write(session.history)

    def on_epoch(self, session: Session, record: EpochRecord) -> None:
        """Write the file with one row more."""
        self._write(session.history)

    def _write(self, history: Sequence[EpochRecord]) -> None:
        rows = [_row(record) for record in history]
        columns = list(dict.fromkeys(name for row in rows for name in row)) or ["epoch", "step"]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.path, text.getvalue().encode())


def _row(record: EpochRecord) -> dict[str, Any]:
    named = {f"train.{name}": value for name, value in record.train.items()}
    named |= {f"valid.{name}": value for name, value in record.valid.items()}
    rest = {"lr": record.lr, "seconds": record.seconds, "items_per_s": record.items_per_s}
    return {"epoch": record.epoch, "step": record.step, **named, **rest}


class TensorBoardLogger(Callback):
    """Writes the numbers of steps and epochs as TensorBoard's event files to ``folder``.

    Raises MissingExtraError without the extra ``tensorboard``.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise missing_extra("TensorBoardLogger", "tensorboardX", "tensorboard") from error
        self._make: Any = SummaryWriter
        self._folder = Path(folder)
        self._writer: Any = None

    def on_begin(self, session: Session) -> None:
        """Open the file; what a run wrote there after the step that it goes on from does not count any more."""
        self._writer = self._make(str(self._folder), purge_step=session.at.step + 1)

    def on_step(self, session: Session, lines: Sequence[dict[str, Any]]) -> None:
        """Write the numbers of steps, by name."""
        for line in lines:
            for name, value in line.items():
                if name not in ("kind", "epoch", "step"):
                    self._writer.add_scalar(f"step/{name}", value, line["step"])

    def on_epoch(self, session: Session, record: EpochRecord) -> None:
        """Write the numbers of an epoch, by split and name."""
        for split, values in (("train", record.train), ("valid", record.valid)):
            for name, value in values.items():
                self._writer.add_scalar(f"{split}/{name}", value, record.step)
        self._writer.flush()

    def on_end(self, session: Session, result: Result | None) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
