"""What a run leaves in its folder while it goes on: log, checkpoints, details and state; without a place, nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wgpu_nn.errors import RecordError
from wgpu_nn.nn import Config
from wgpu_nn.record import latest_checkpoint, save_module
from wgpu_nn.train.checkpoint import Parts, Position, load_position, take_position
from wgpu_nn.train.evaluation import Details
from wgpu_nn.train.feed import Loader
from wgpu_nn.train.folder import METRICS, MODEL, State, begin_run, found_in, make_writable, write_details, write_state
from wgpu_nn.train.history import EpochRecord
from wgpu_nn.train.log import Log
from wgpu_nn.train.samples import write_samples
from wgpu_nn.train.step import StepFunction
from wgpu_nn.train.writer import Writer


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run is written, and under which terms: see ``Learner.fit``."""

    folder: Path
    config: Config | None = None
    resume: bool = False
    overwrite: bool = False
    keep: int = 2
    every: int | None = None
    samples: int = 64


class Journal:
    """Writes down a run of ``parts`` at ``place``; ``facts`` are what run.json says of it.

    Making one changes nothing, and raises RecordError where the folder may not be used.
    """

    def __init__(self, place: Place | None, parts: Parts, facts: Callable[[], Mapping[str, Any]]) -> None:
        self._place, self._parts, self._facts = place, parts, facts
        self._from = None if place is None else found_in(place.folder, parts, place.resume, place.overwrite)
        self._log: Log | None = None
        self._writer: Writer | None = None
        self._saved: tuple[int, int] | None = None  # the position of the last checkpoint
        self._idle = False  # the run was complete before

    @property
    def folder(self) -> Path | None:
        """The folder, if there is one."""
        return None if self._place is None else self._place.folder

    def start(self, epochs: int) -> Position:
        """Make the folder ready, and return where the run of ``epochs`` starts; what a resumed one wrote after that goes."""
        place = self._place
        if place is None:
            return Position()
        make_writable(place.folder)
        self._log = Log(place.folder / METRICS)
        if self._from is None:
            begin_run(place.folder, place.config)
            at = Position()
        else:
            at = load_position(self._from, self._parts)
            self._log.rewind(at.epoch, at.step)
            self._saved = (at.epoch, at.batch)
            self._idle = at.epoch >= epochs
        self._writer = Writer(place.folder, place.keep)
        self.state("running")
        return at

    def lines(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append to the log."""
        if self._log is not None:
            self._log.write(lines)

    def due(self, step: int) -> bool:
        """Say whether there should be a checkpoint after ``step``, in the middle of an epoch."""
        every = None if self._place is None else self._place.every
        return bool(every) and step % (every or 1) == 0

    def save(self, at: Position, best: EpochRecord | None) -> None:
        """Begin to write a checkpoint of the run as it is now, if there is none yet."""
        if self._writer is not None and self._saved != (at.epoch, at.batch):
            self._saved = (at.epoch, at.batch)
            self._writer.save(take_position(self._parts, at), () if best is None else {best.step})

    def turn(self) -> None:
        """Let the writing of checkpoints go on; raises what went wrong in it, and waits for nothing."""
        if self._writer is not None:
            self._writer.turn()

    def details(self, record: EpochRecord, details: Details, best: EpochRecord | None) -> None:
        """Write the details of an epoch's metrics."""
        if self.folder is not None:
            write_details(self.folder, record.epoch, details, record.epoch if best is None else best.epoch)

    def samples(self, step: StepFunction, valid: Loader | None, best: EpochRecord | None) -> None:
        """Write some of the validation data's items that the best model gets wrong."""
        if (
            self._place is not None
            and self._place.samples
            and valid is not None
            and best is not None
            and not self._idle
        ):
            write_samples(self._place.folder, self._parts.model, step, valid, best, self._place.samples)

    def latest(self) -> Path | None:
        """Return the last checkpoint, once what is being written is there."""
        if self._writer is None or self.folder is None:
            return None
        self._writer.finish()
        return latest_checkpoint(self.folder)

    def finish(self) -> Path | None:
        """Wait for the last checkpoint, write the model, and return that checkpoint."""
        found = self.latest()
        if self.folder is not None:
            save_module(self._parts.model, self.folder / MODEL)
        return found

    def state(self, state: State, message: str = "") -> None:
        """Write run.json; that of a run that was complete before stays."""
        if self.folder is not None and not self._idle:
            write_state(self.folder, state, self._facts(), message)

    def fail(self, error: BaseException) -> None:
        """Write run.json for a run that ends by an error; that error is what the user hears of, not another one here."""
        with suppress(RecordError):  # a full disk, say, which is the error
            self.state("failed" if isinstance(error, Exception) else "stopped", f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """End the writing thread."""
        if self._writer is not None:
            self._writer.close()
