"""Trainer: epochs over a data set, shown, written down, saved, and resumed; what a step does is left to step.py."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wgpu_nn.data import DataLoader
from wgpu_nn.errors import RecordError, TrainingError
from wgpu_nn.nn import Config, Module
from wgpu_nn.optim import Optimizer
from wgpu_nn.record import latest_checkpoint, save_module
from wgpu_nn.tensor import Device
from wgpu_nn.train.capture import capture
from wgpu_nn.train.checkpoint import EpochRecord, Parts, Position, check_identity, load_position, save_position
from wgpu_nn.train.feed import KEPT_BYTES, Feed, feed
from wgpu_nn.train.interrupt import Interrupt, Stopped
from wgpu_nn.train.log import Log
from wgpu_nn.train.metrics import READ_SECONDS, Pace, StepValue, Sums, Window
from wgpu_nn.train.progress import Progress, Silent, Snapshot
from wgpu_nn.train.step import FedStep, Loss, device_of, fed, testing_step, total, training_step

TOGETHER = 4  # steps of one submit: small ones spend most of their host time on submits
CONFIG, METRICS, MODEL = "config.json", "metrics.jsonl", "model.safetensors"


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended. An interrupted one goes on from ``checkpoint`` with ``fit(epochs, resume=True)``."""

    interrupted: bool
    step: int
    history: list[EpochRecord]
    best: EpochRecord | None
    checkpoint: Path | None


class Trainer:
    """Trains a classifier on batches of (inputs, classes), and writes the folder ``run``:

    ``config.json``, ``metrics.jsonl`` (a line for each step and each epoch), ``checkpoint-<step>/`` (the last two; one
    after every epoch, and one where Ctrl-C stopped), and at the end ``model.safetensors``.

    ``config`` is whatever tells this run from others: a run is only resumed under an equal one. The model lives on an
    autodiff device; ``test_device`` names another one for the evaluation, the CPU for example. ``rate`` gives the learning
    rate of each epoch, the first being 0; without it the optimizer's stays.

    Data sets in memory are uploaded once, here, and every step gathers its batch on the device, if they are KEPT_BYTES or
    less together and the loader has no ``transform``; other batches are uploaded one by one, and ``fit`` notes why. With
    ``keep_on_device`` they must stay there, a transform's first result included, and with False they never do. The
    numbers that come out are the same, bit for bit.
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        loss: Loss,
        train: DataLoader,
        test: DataLoader,
        run: str | Path,
        config: Config,
        test_device: Device | None = None,
        rate: Callable[[int], float] | None = None,
        keep_on_device: bool | None = None,
    ) -> None:
        self.device = device_of(model)
        if not self.device.is_autodiff:
            raise TrainingError(f"Trainer: expected a model on an autodiff device, got {self.device}; use .autodiff()")
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.train, self.test, self.test_device = train, test, test_device
        self.run, self.config = Path(run), config
        self.rate = rate
        below = self.device.inner()
        where = below if test_device is None else test_device
        self.train_feed = feed(train, self.device, keep_on_device, KEPT_BYTES)
        self.test_feed = feed(test, where, keep_on_device, KEPT_BYTES - self.train_feed.nbytes)
        self._window, self._test_window, self._pace = Window(below), Window(where), Pace()
        step = fed(training_step(model, optimizer, loss), self.train_feed, self._window)
        self.step: FedStep = capture(state=[model, optimizer, *self._window.cells], calls_per_submit=TOGETHER)(step)
        at_rest = fed(testing_step(model, loss), self.test_feed, self._test_window)
        self.test_step: FedStep = capture(state=[model, *self._test_window.cells], calls_per_submit=TOGETHER)(at_rest)
        self._parts = Parts(model, optimizer, self.device.rng, config, train)
        self._log = Log(self.run / METRICS)

    # --- the run -----------------------------------------------------------------------------------------------------
    def fit(
        self, epochs: int, resume: bool = False, overwrite: bool = False, progress: Progress | None = None
    ) -> Result:
        """Train until ``epochs`` epochs are complete, or until Ctrl-C; a second Ctrl-C raises KeyboardInterrupt.

        With ``resume`` the run goes on from its last checkpoint, in the middle of an epoch too, and comes to the same
        weights, bit for bit, as if it had never stopped. A folder that holds a run is refused without ``resume`` or
        ``overwrite``. Raises TrainingError, naming the step, when a loss is not finite; the last good checkpoint stays.
        """
        at = self._begin(resume, overwrite)
        show = Silent() if progress is None else progress
        interrupted = False
        with Interrupt() as interrupt:
            show.begin()
            try:
                self._note_streams(show)
                for record in at.history:  # the table is whole after a resume, too
                    show.epoch(record)
                while at.epoch < epochs:
                    self._train_epoch(at, epochs, show, interrupt)
                    self._end_epoch(at, epochs, show, interrupt)
            except Stopped:
                interrupted = True
                self._read(at, wait=True)
                save_position(self.run, self._parts, at)
            finally:
                show.end()
            save_module(self.model, self.run / MODEL)
        return Result(interrupted, at.step, list(at.history), at.best, latest_checkpoint(self.run))

    def _begin(self, resume: bool, overwrite: bool) -> Position:
        """Make the folder ready, and return where to start."""
        self._window.clear()
        self._pace = Pace()
        found = latest_checkpoint(self.run)
        if resume and found is not None:
            at = load_position(found, self._parts)
            self._log.rewind(at.epoch, at.step)
            return at
        if resume and (self.run / CONFIG).exists() and not (self.run / MODEL).exists():
            # It was stopped before its first checkpoint: it starts again.
            check_identity(f"resume: {self.run / CONFIG}", _config_in(self.run), self._parts.identity()["config"])
        elif holds_run(self.run) and not overwrite:
            state = "one whose checkpoints are gone" if resume else "one with a run in it"
            raise RecordError(
                f"fit: {self.run}: expected a new folder, got {state}; "
                f"{'' if resume else 'resume it, '}overwrite it, or choose another"
            )
        try:
            remove_run(self.run)
            self.run.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordError(f"fit: {self.run}: expected a folder to write to, got {error.strerror}") from error
        self.config.save(self.run / CONFIG)
        return Position()

    def _note_streams(self, show: Progress) -> None:
        feeds: dict[str, Feed] = {"training": self.train_feed, "test": self.test_feed}
        for reason in dict.fromkeys(f.reason for f in feeds.values() if f.reason):
            names = " and ".join(name for name, f in feeds.items() if f.reason == reason)
            show.note(f"{names} data do not stay on the device, but are uploaded batch by batch: {reason}")

    # --- an epoch ----------------------------------------------------------------------------------------------------
    def _train_epoch(self, at: Position, epochs: int, show: Progress, interrupt: Interrupt) -> None:
        self._pace.start()
        if self.rate is not None:
            self.optimizer.lr = self.rate(at.epoch)
        with closing(self.train_feed.epoch(at.epoch, at.batch)) as batches:
            for given, items in batches:
                interrupt.check()
                self.step(given)
                self._window.note(items)
                at.step += 1
                at.batch += 1
                if self._read(at, wait=False):
                    show.update(self._snapshot(at, epochs))
        self._read(at, wait=True)
        interrupt.check()

    def _end_epoch(self, at: Position, epochs: int, show: Progress, interrupt: Interrupt) -> None:
        """Evaluate, write the epoch down, and save."""
        clock = Pace()
        clock.start()
        shown = -math.inf

        def each(done: int) -> None:
            nonlocal shown
            interrupt.check()
            if time.perf_counter() - shown >= READ_SECONDS:
                show.update(self._snapshot(at, epochs, testing=done / len(self.test)))
                shown = time.perf_counter()

        step = self.test_step
        if self.test_device is not None:
            resting = self.model.valid().to_device(self.test_device)
            step = fed(testing_step(resting, self.loss), self.test_feed, self._test_window)
        test = total(step, self.test_feed, self._test_window, each)
        if not math.isfinite(test.loss):
            raise TrainingError(self._diverged(f"the loss on the test set is {test.loss}", at.step, at))
        train = at.sums.metrics()
        record = EpochRecord(
            epoch=at.epoch + 1,
            step=at.step,
            train_loss=train.loss,
            train_accuracy=train.accuracy,
            test_loss=test.loss,
            test_accuracy=test.accuracy,
            seconds=at.seconds + clock.count(0),
            images_per_s=train.items / at.seconds if at.seconds else 0.0,
        )
        at.history.append(record)
        at.epoch, at.batch, at.seconds, at.sums = at.epoch + 1, 0, 0.0, Sums()
        self._log.write([{"kind": "epoch", **asdict(record)}])
        save_position(self.run, self._parts, at)
        show.epoch(record)

    # --- what was measured -------------------------------------------------------------------------------------------
    def _read(self, at: Position, wait: bool) -> bool:
        """Check the steps whose numbers have come, or all if it may ``wait``; add them up and write them down.

        Says whether there were any.
        """
        values = self._window.read() if wait else self._window.turn()
        first = at.step - self._window.unread - len(values) + 1
        good = next((i for i, value in enumerate(values) if not math.isfinite(value.loss)), len(values))
        for value in values[:good]:
            at.sums.add(value)
        if values or wait:
            at.seconds += self._pace.count(sum(value.items for value in values))
        self._log.write(_line(at, first + i, value) for i, value in enumerate(values[:good]))
        if good < len(values):
            raise TrainingError(self._diverged(f"the loss is {values[good].loss}", first + good, at))
        return bool(values)

    def _diverged(self, what: str, step: int, at: Position) -> str:
        kept = latest_checkpoint(self.run)
        batch = at.batch - (at.step - step)
        return (
            f"fit: {what} at step {step} (epoch {at.epoch + 1}, batch {batch} of {len(self.train)}); "
            f"{f'the last good checkpoint is {kept}' if kept else 'no checkpoint was taken yet'}; "
            "lower the learning rate, or look for bad values in the data"
        )

    def _snapshot(self, at: Position, epochs: int, testing: float | None = None) -> Snapshot:
        means, pace = at.sums.metrics(), self._pace.per_second
        batches = len(self.train)
        to_do = ((epochs - at.epoch) * batches - at.batch) * self.train.batch_size
        left = to_do / pace if pace else None
        return Snapshot(at.epoch + 1, epochs, at.batch, batches, means.loss, means.accuracy, pace, left, testing)


def holds_run(folder: Path) -> bool:
    """Say whether a training run was begun in ``folder``."""
    return any((folder / name).exists() for name in (CONFIG, METRICS, MODEL)) or latest_checkpoint(folder) is not None


def remove_run(folder: Path) -> None:
    """Remove a training run from ``folder``, and leave whatever else is there."""
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    for name in (CONFIG, METRICS, MODEL):
        (folder / name).unlink(missing_ok=True)


def _config_in(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise RecordError(f"resume: {folder / CONFIG}: expected a readable JSON file, got {error}") from error
    return config if isinstance(config, dict) else {}


def _line(at: Position, step: int, value: StepValue) -> dict[str, Any]:
    return {
        "kind": "step",
        "epoch": at.epoch + 1,
        "step": step,
        "loss": value.loss,
        "accuracy": value.correct / value.items,
    }
