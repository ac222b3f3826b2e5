"""Session: one call of fit. Epochs over a data set, shown, written down, saved, and resumed; steps are step.py's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from wgpu_nn.errors import TrainingError
from wgpu_nn.train.callbacks import Callback
from wgpu_nn.train.checkpoint import Parts, Position
from wgpu_nn.train.evaluation import Details, Evaluation, Resting, together
from wgpu_nn.train.feed import KEPT_BYTES, Feed, Given, Loader, feed, items_in, length
from wgpu_nn.train.folder import facts_of
from wgpu_nn.train.gauge import Gauge
from wgpu_nn.train.history import EpochRecord
from wgpu_nn.train.interrupt import Interrupt, Stopped
from wgpu_nn.train.journal import Journal, Place
from wgpu_nn.train.ledger import Ledger
from wgpu_nn.train.preflight import check_labels, preflight
from wgpu_nn.train.progress import Progress, Snapshot
from wgpu_nn.train.settings import Settings
from wgpu_nn.train.step import Accumulator, device_of
from wgpu_nn.train.totals import Statistics
from wgpu_nn.train.window import Pace, Steps, Sums

SHOW_SECONDS = 0.1  # between pictures of where the run is; who draws may well draw less often
LOOK_SECONDS = 0.01  # between looks at keys and at what is being written


@dataclass(frozen=True, slots=True)
class Result:
    """How a run ended: ``reason`` says why, if not by the end of its epochs.

    An interrupted one goes on from ``checkpoint`` with ``fit(..., resume=True)``.
    """

    interrupted: bool
    step: int
    history: list[EpochRecord]
    best: EpochRecord | None
    checkpoint: Path | None
    reason: str = ""


class Session:
    """A run of ``settings`` over ``train`` and ``valid``; what callbacks see of it."""

    def __init__(
        self,
        settings: Settings,
        train: Loader,
        valid: Loader | None,
        epochs: int,
        place: Place | None,
        show: Progress,
    ) -> None:
        self.settings, self.train, self.valid, self.epochs = settings, train, valid, epochs
        self.model, self.optimizer = settings.training.model, settings.training.optimizer
        self.device = device_of(self.model)
        below = self.device.inner()
        self._show = show
        self._interrupt = Interrupt()
        self._stop = ""
        self._skip = False
        self._rest = 0.0  # seconds that the last epoch took beside its training
        self._fresh: list[float] = []  # losses that were read since they were shown
        self._show_at = self._look_at = -math.inf
        # Most callbacks wait for epochs, and a line for each step is a microsecond of it.
        self._listening = [c for c in settings.callbacks if getattr(type(c), "on_step", None) is not Callback.on_step]
        self._ledger, self._pace, self._gauge = Ledger(settings.summed, below), Pace(), Gauge(below)
        config = None if place is None else place.config
        rng, totals = self.device.rng, self._ledger.totals
        parts = Parts(
            self.model, self.optimizer, rng, totals, train, config, settings.accumulate, settings.training.scale
        )
        self._journal = Journal(place, parts, self._facts)
        self.at = Position()
        self._prepare()

    def _prepare(self) -> None:
        """Make data and steps ready, and check what can be checked; raises before anything is changed."""
        s = self.settings
        step, resting = s.training.step, Resting(self.model, s.valid_device)
        below = self.device.inner()
        self.train_feed = feed(self.train, self.device, s.keep_on_device, KEPT_BYTES)
        out = preflight("training", self.model, step, self.train_feed, s.summed)
        check_labels(self.train_feed, s.loss, out)
        self.valid_feed: Feed | None = None
        self._evaluation: Evaluation | None = None
        if self.valid is not None:
            where = below if s.valid_device is None else s.valid_device
            self.valid_feed = feed(self.valid, where, s.keep_on_device, KEPT_BYTES - self.train_feed.nbytes)
            check_labels(self.valid_feed, s.loss, out)
            preflight("validation", self.model, s.valid_step, self.valid_feed, s.metrics)
            self._evaluation = Evaluation(resting, s.valid_step, s.metrics, self.valid_feed, where, s.captured)
        training, ledger, source = s.training, self._ledger, self.train_feed
        gathered = self._gathered = Accumulator() if s.accumulate > 1 else None
        scale = training.scale
        state = [self.model, self.optimizer, ledger, *([gathered] if gathered else []), *([scale] if scale else [])]

        def update(given: Given) -> Statistics:
            return ledger.put(training.update(source.batch(given), gathered))

        def gather(given: Given) -> Statistics:
            assert gathered is not None
            return ledger.put(training.gather(source.batch(given), gathered))

        self.update: Callable[[Given], Statistics] = together(update, state, s.captured)
        self._gather: Callable[[Given], Statistics] = together(gather, state, s.captured)

    # --- what callbacks may use --------------------------------------------------------------------------------------
    @property
    def history(self) -> list[EpochRecord]:
        """The epochs that are complete."""
        return self.at.history

    @property
    def best(self) -> EpochRecord | None:
        """The best epoch so far, by the Learner's ``monitor``."""
        return self.settings.monitor.best(self.at.history)

    @property
    def folder(self) -> Path | None:
        """The folder of the run, if it is written down."""
        return self._journal.folder

    def stop(self, reason: str) -> None:
        """End the run after the present step, with a checkpoint."""
        self._stop = reason

    # --- the run -----------------------------------------------------------------------------------------------------
    def run(self) -> Result:
        """Train until the epochs are complete, or until something stops it; see ``Learner.fit``."""
        self.at = self._journal.start(self.epochs)
        result: Result | None = None
        with self._interrupt:
            self._show.begin({m.name: m.better for m in self.settings.metrics})
            try:
                self._open()
                result = self._end(self._train())
                return result
            except BaseException as error:
                self._journal.fail(error)
                raise
            finally:
                self._journal.close()
                self._show.end()
                for callback in self.settings.callbacks:
                    callback.on_end(self, result)

    def _open(self) -> None:
        feeds = {"training": self.train_feed, "validation": self.valid_feed}
        reasons = {name: f.reason for name, f in feeds.items() if f is not None and f.reason}
        for reason in dict.fromkeys(reasons.values()):
            names = " and ".join(name for name, why in reasons.items() if why == reason)
            self._show.note(f"{names} data do not stay on the device, but are uploaded batch by batch: {reason}")
        for record in self.at.history:  # the table is whole after a resume, too
            self._show.epoch(record)
        for callback in self.settings.callbacks:
            callback.on_begin(self)

    def _train(self) -> bool:
        """Train epoch by epoch; say whether it was stopped within one."""
        try:
            while self.at.epoch < self.epochs and not self._stop:
                self._train_epoch()
                self._end_epoch()
        except Stopped:
            self._book(self._ledger.read())
            self._journal.save(self.at, self.best)
            return True
        return False

    def _end(self, stopped: bool) -> Result:
        """Wait for the last checkpoint, and write what a finished run has."""
        checkpoint = self._journal.finish()
        self._journal.samples(self.settings.valid_step, self.valid, None if stopped else self.best)
        self._journal.state("stopped" if stopped else "done", self._stop or ("interrupted" if stopped else ""))
        interrupted = stopped and not self._stop
        return Result(interrupted, self.at.step, list(self.at.history), self.best, checkpoint, self._stop)

    # --- an epoch ----------------------------------------------------------------------------------------------------
    def _train_epoch(self) -> None:
        at = self.at
        if at.batch == 0:
            at.sums, at.seconds = Sums(), 0.0
            self._ledger.totals.clear()
        self._set_rate(self.settings.rates.of_epoch(at.history))
        self._skip = False
        self._pace.start()
        self._gauge.start(at.step)
        with closing(self.train_feed.epoch(at.epoch, at.batch)) as batches:
            for (given, items), last in with_last(batches):
                self._attend()
                if self._skip:
                    break
                if steps := self.take(given, items, last):
                    self._book(steps)
                    self._show_now_and_then()
                if self._journal.due(at.step) and self._whole() and not last:
                    self._book(self._ledger.read())
                    self._journal.save(at, self.best)
        self._book(self._ledger.read())
        self._show_now_and_then()
        self._attend()

    def take(self, given: Given, items: int, last: bool) -> Steps:
        """Train on one batch, perhaps the ``last`` of the epoch: a step of the optimizer, or a part of one.

        Returns the steps whose numbers have come by then.
        """
        at, gathered = self.at, self._gathered
        if self.settings.rates.schedule is not None:
            self._set_rate(self.settings.rates.of_step(self.optimizer.steps))
        if gathered is not None and gathered.batches + 1 < self.settings.accumulate and not last:
            found = self._gather(given)
            gathered.batches += 1
        else:
            found = self.update(given)
            if gathered is not None:
                gathered.batches = 0
        at.step += 1
        at.batch += 1
        return self._ledger.note(found, items, self.optimizer.lr)

    def _set_rate(self, rate: float | None) -> None:
        if rate is not None:
            self.optimizer.lr = rate

    def _whole(self) -> bool:
        """Say whether the optimizer has made its step of every batch so far: only then may a run stop, or be saved."""
        return self._gathered is None or self._gathered.batches == 0

    def _attend(self) -> None:
        """Do what callbacks, keys and Ctrl-C ask for, and let writing go on."""
        now = time.perf_counter()
        if not (self._stop or self._interrupt.asked or now >= self._look_at) or not self._whole():
            return  # nearly always
        self._look_at = now + LOOK_SECONDS
        self._press()
        self._journal.turn()
        if self._stop:
            raise Stopped
        self._interrupt.check()

    def _press(self) -> None:
        """Do what keys ask for: q saves and stops, s skips to the end of the epoch, p pauses until it is pressed again."""
        for key in self._show.pressed():
            if key == "q":
                self._interrupt.asked = True
            elif key == "s":
                self._skip = True
            elif key == "p":
                self._show.note("paused; p goes on, q saves and stops")
                while not self._interrupt.asked and "p" not in (keys := self._show.pressed()):
                    self._interrupt.asked |= "q" in keys
                    time.sleep(0.05)

    def _end_epoch(self) -> None:
        """Evaluate, write the epoch down, and save."""
        at = self.at
        clock = Pace()
        clock.start()
        self._gauge.stop()
        metrics = self._ledger.totals.measure()[0]
        valid, details = self._evaluate()
        train = at.sums.means() | metrics
        self._rest = clock.count(0)
        record = EpochRecord(
            epoch=at.epoch + 1,
            step=at.step,
            train=train,
            valid=valid,
            lr=self.optimizer.lr,
            seconds=at.seconds + self._rest,
            items_per_s=at.sums.items / at.seconds if at.seconds else 0.0,
            launches_per_step=self._gauge.launches(at.step),
            gpu_bytes=self._gauge.nbytes(),
        )
        at.history.append(record)
        at.epoch, at.batch, at.seconds, at.sums = at.epoch + 1, 0, 0.0, Sums()
        self._journal.lines([{"kind": "epoch", **asdict(record)}])
        self._journal.details(record, details, self.best)
        self._journal.save(at, self.best)
        self._show.epoch(record)
        for callback in self.settings.callbacks:
            callback.on_epoch(self, record)

    def _evaluate(self) -> tuple[dict[str, float], Details]:
        if self._evaluation is None or self.valid is None:
            return {}, {}
        batches = length(self.valid)
        self._show_at = -math.inf  # that it begins is shown at once

        def each(done: int) -> None:
            self._attend()
            self._show_now_and_then(testing=done / batches if batches else 0.0)

        found, details = self._evaluation.run(each)
        if not math.isfinite(found["loss"]):
            raise TrainingError(self._diverged(f"the loss on the validation data is {found['loss']}", self.at.step))
        return found, details

    # --- what was measured -------------------------------------------------------------------------------------------
    def _book(self, steps: Steps) -> None:
        """Add up the numbers of steps, write them down, and check that they are numbers."""
        if not steps:
            return
        at = self.at
        first = at.step - self._ledger.window.unread - len(steps) + 1
        at.seconds += self._pace.count(sum(steps.items))
        good = next((i for i, loss in enumerate(steps.losses) if not math.isfinite(loss)), len(steps))
        fine = steps.first(good)
        at.sums.add(fine)
        self._fresh += fine.losses
        lines = _lines(at, first, fine) if self._listening or self.folder is not None else []
        self._journal.lines(lines)
        if good < len(steps):
            raise TrainingError(self._diverged(f"the loss is {steps.losses[good]}", first + good))
        for callback in self._listening:
            callback.on_step(self, lines)

    def _show_now_and_then(self, testing: float | None = None) -> None:
        if (now := time.perf_counter()) >= self._show_at:
            self._show_at = now + SHOW_SECONDS
            self._show.update(self._snapshot(testing))
            self._fresh = []

    def _diverged(self, what: str, step: int) -> str:
        kept = self._journal.latest()
        batch, batches = self.at.batch - (self.at.step - step), length(self.train)
        return (
            f"fit: {what} at step {step} (epoch {self.at.epoch + 1}, batch {batch}{f' of {batches}' if batches else ''}); "
            f"{f'the last good checkpoint is {kept}' if kept else 'no checkpoint was taken yet'}; "
            "lower the learning rate, or look for bad values in the data"
        )

    def _snapshot(self, testing: float | None = None) -> Snapshot:
        at, pace, batches = self.at, self._pace.per_second, length(self.train)
        to_do = None if batches is None else ((self.epochs - at.epoch) * batches - at.batch) * self.train.batch_size
        return Snapshot(
            epoch=at.epoch + 1,
            epochs=self.epochs,
            batch=at.batch,
            batches=batches,
            values=at.sums.means() | self._ledger.totals.values(),
            items_per_s=pace,
            seconds_left=None if to_do is None or not pace else to_do / pace + (self.epochs - at.epoch) * self._rest,
            testing=testing,
            lr=self.optimizer.lr,
            launches_per_step=self._gauge.launches(at.step),
            gpu_bytes=self._gauge.nbytes(),
            losses=self._fresh,
        )

    def _facts(self) -> dict[str, Any]:
        """Return what run.json says of the run."""
        splits = {"train": self.train} | ({} if self.valid is None else {"valid": self.valid})
        return facts_of(self.model, self.device.inner()) | {
            "optimizer": f"{type(self.optimizer).__name__}(lr={self.optimizer.lr})",
            "monitor": asdict(self.settings.monitor),
            "metrics": {m.name: m.better for m in self.settings.metrics},
            "items": {name: items_in(split) for name, split in splits.items()},
            "epochs": self.epochs,
        }


T = TypeVar("T")


def with_last(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Yield each item with whether it is the last one; reads one ahead."""
    ahead = iter(items)
    for before in ahead:
        for item in ahead:
            yield before, False
            before = item
        yield before, True


def _lines(at: Position, first: int, steps: Steps) -> list[dict[str, Any]]:
    """Return the log's lines of steps, from number ``first``."""
    rows = [dict(zip(steps.values, row)) for row in zip(*steps.values.values())]
    return [
        {"kind": "step", "epoch": at.epoch + 1, "step": step, **values, "lr": lr}
        for step, (values, lr) in enumerate(zip(rows, steps.rates), start=first)
    ]
