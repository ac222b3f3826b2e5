"""Learner: a model with what trains and judges it; ``fit``, ``evaluate`` and ``predict`` over data. The loop is Session's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np

from wgpu_nn.data import ArrayDataset, DataLoader, Dataset, StreamLoader
from wgpu_nn.errors import ConfigError, TrainingError
from wgpu_nn.metrics import Metric
from wgpu_nn.nn import Config, Module
from wgpu_nn.optim import Optimizer, PlateauSchedule, Schedule
from wgpu_nn.tensor import Device, Tensor
from wgpu_nn.train.callbacks import Callback
from wgpu_nn.train.evaluation import Evaluation, Prediction, Resting
from wgpu_nn.train.feed import Loader, Streamed, feed
from wgpu_nn.train.history import monitor_of
from wgpu_nn.train.journal import Place
from wgpu_nn.train.precision import LossScale
from wgpu_nn.train.preflight import check_labels, preflight
from wgpu_nn.train.progress import Progress, Silent
from wgpu_nn.train.session import Result, Session
from wgpu_nn.train.settings import Rates, Settings
from wgpu_nn.train.step import Batch, Clipping, Loss, Model, StepFunction, Training, device_of, supervised

Data: TypeAlias = "Loader | Dataset[Any] | np.ndarray | tuple[np.ndarray, ...]"
"""A loader; or a data set or arrays, which are read in order, ITEMS at a time."""

ITEMS = 256
TOGETHER = 4  # steps of one submit: small ones spend most of their host time on submits


class Learner:
    """Trains ``model`` by ``optim``, and measures it.

    Batches of (inputs, targets) go through ``loss(model.forward(inputs), targets)``; ``loss`` is a module such as
    CrossEntropyLoss, or a function. Anything else (a VAE, several inputs, batches that are dicts, data without targets)
    is a ``step``: a function (model, batch) -> Output. ``valid_step`` is another one for evaluation, where that differs.

    ``metrics`` are measured on the device over training and validation data alike, those that must keep every output
    (AUROC) over the latter only. ``monitor`` names the number that says which epoch is best: "loss", a metric, or one of
    them on a split ("train.loss"); on the validation data where there are any.

    ``schedule`` gives the learning rate of each step, or of each epoch with ``schedule_by="epoch"``. With ``accumulate``
    n the optimizer makes a step after every n batches, by the mean of their gradients, and one by what is left at an
    epoch's end. ``clip_value`` limits each element of the gradients, then ``clip_norm`` the norm of all together.

    With ``precision="f16"`` training steps compute on a working copy of the model in halves, and scale the loss so that
    small gradients are not lost; weights, optimizer and evaluation stay in f32. A ``step`` of your own gets that copy as its
    model, and gives it inputs in halves (``x.half()``).

    Steps are captured, ``calls_per_submit`` of them sent at once; ``capture=False`` runs them op by op. The model lives
    on an autodiff device; ``valid_device`` names another one for evaluation, the CPU for example. Data sets in memory are
    uploaded once, if they are 1 GiB or less together and the loader has no ``transform``; other batches are uploaded one
    by one, and ``fit`` notes why. With ``keep_on_device`` they must stay there, a transform's first result included, and
    with False they never do. The numbers that come out are the same, bit for bit.

    Raises ConfigError and TrainingError for parts that do not fit together.
    """

    def __init__(
        self,
        model: Module,
        optim: Optimizer,
        loss: Loss | Callable[[Tensor, Tensor], Tensor] | None = None,
        metrics: Sequence[Metric] = (),
        *,
        step: StepFunction | None = None,
        valid_step: StepFunction | None = None,
        schedule: Schedule | PlateauSchedule | None = None,
        schedule_by: Literal["step", "epoch"] = "step",
        accumulate: int = 1,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        precision: Literal["f32", "f16"] = "f32",
        monitor: str = "loss",
        callbacks: Sequence[Callback] = (),
        capture: bool = True,
        calls_per_submit: int = TOGETHER,
        valid_device: Device | None = None,
        keep_on_device: bool | None = None,
    ) -> None:
        self.device = device_of(model)
        if not self.device.is_autodiff:
            raise TrainingError(f"Learner: expected a model on an autodiff device, got {self.device}; use .autodiff()")
        if (loss is None) == (step is None):
            raise ConfigError("Learner: expected a loss or a step, got both or neither; a step returns its own loss")
        if accumulate < 1 or calls_per_submit < 1:
            raise ConfigError(
                f"Learner: expected accumulate and calls_per_submit of 1 or more, got {accumulate} and {calls_per_submit}"
            )
        if precision not in ("f32", "f16"):
            raise ConfigError(f"Learner: expected precision f32 or f16, got {precision}")
        names = [m.name for m in metrics]
        if len(set(names)) < len(names) or "loss" in names:
            raise ConfigError(
                f"Learner: expected metrics of different names, and none called loss, got {names}; set name="
            )
        self.model, self.optimizer = model, optim
        training = supervised(loss, precision == "f16") if loss is not None else cast(StepFunction, step)
        resting = supervised(loss) if loss is not None else training
        scale = LossScale(self.device) if precision == "f16" else None
        self.settings = Settings(
            training=Training(model, optim, training, Clipping(clip_value, clip_norm), scale),
            valid_step=valid_step or resting,
            loss=loss,
            metrics=tuple(metrics),
            rates=Rates(schedule, schedule_by),
            accumulate=accumulate,
            monitor=monitor_of(monitor, metrics),
            captured=calls_per_submit if capture else 0,
            callbacks=tuple(callbacks),
            valid_device=valid_device,
            keep_on_device=keep_on_device,
        )
        self._evaluations: dict[Loader, Evaluation] = {}
        self._predictions: dict[object, Prediction] = {}

    def fit(
        self,
        train: Loader,
        valid: Loader | None = None,
        epochs: int = 1,
        *,
        run: str | Path | None = None,
        config: Config | None = None,
        resume: bool = False,
        overwrite: bool = False,
        keep: int = 2,
        checkpoint_every: int | None = None,
        samples: int = 64,
        show: Progress | None = None,
    ) -> Result:
        """Train until ``epochs`` epochs are complete, or until Ctrl-C; a second Ctrl-C raises KeyboardInterrupt.

        With a folder ``run`` it is written down there: config.json, run.json, metrics.jsonl (a line for each step and each
        epoch), details of metrics, checkpoints (the last ``keep`` and the best; one after every epoch, after every
        ``checkpoint_every`` steps too if that is given, and where Ctrl-C stopped), and at the end model.safetensors and, of
        class labels, samples.npz: up to ``samples`` items of ``valid`` that the best model gets wrong.

        ``config`` is whatever tells this run from others. With ``resume`` a run goes on from its last checkpoint, in the
        middle of an epoch too, and comes to the same weights, bit for bit, as if it had never stopped; only under an equal
        config and equal data. A folder that holds a run is refused without ``resume`` or ``overwrite``.

        What can be checked is checked before anything is changed: the folder, that batches pass through model, loss and
        metrics, and class labels. Raises TrainingError, naming the step, when a loss is not finite, and RecordError when a
        file cannot be written: the last good checkpoint stays, and the model as it is in memory.
        """
        if epochs < 0 or keep < 1 or (checkpoint_every is not None and checkpoint_every < 1):
            raise ConfigError(
                "fit: expected epochs >= 0, keep >= 1 and checkpoint_every >= 1, "
                f"got {epochs}, {keep} and {checkpoint_every}"
            )
        if run is None and (resume or overwrite or checkpoint_every):
            raise ConfigError("fit: expected a folder to resume, overwrite or save in, got none; give run=folder")
        place = None if run is None else Place(Path(run), config, resume, overwrite, keep, checkpoint_every, samples)
        return Session(self.settings, train, valid, epochs, place, Silent() if show is None else show).run()

    def evaluate(self, data: Data) -> dict[str, float]:
        """Return the mean loss and every metric over ``data``, by name, of the model as it is now, at rest.

        A loader's data that stay on the device do so as long as the Learner lives, so that the next call finds them there.
        """
        s = self.settings
        loader = _loader(data)
        found = self._evaluations.get(loader)
        if found is None:
            where = self.device.inner() if s.valid_device is None else s.valid_device
            source = feed(loader, where, s.keep_on_device)
            check_labels(source, s.loss, preflight("given", self.model, s.valid_step, source, s.metrics))
            resting = Resting(self.model, s.valid_device)
            found = Evaluation(resting, s.valid_step, s.metrics, source, where, s.captured)
            if loader is data:
                self._evaluations[loader] = found
        return found.run()[0]

    def predict(self, data: Data, forward: Callable[[Module, Batch], Any] | None = None) -> Any:
        """Return what the model, at rest, makes of ``data``: an array [items, ...] in order of the loader's epoch 0.

        It is given the first array of each batch; ``forward(model, batch)`` does otherwise, and may return tuples and dicts
        of tensors, which come back as those of arrays. The data need no targets.
        """
        s = self.settings
        where = self.device.inner() if s.valid_device is None else s.valid_device
        key = forward or _first
        found = self._predictions.get(key)
        if found is None:
            found = Prediction(Resting(self.model, s.valid_device), key, s.captured)
            self._predictions[key] = found
        return found.run(Streamed(_loader(data), where))


def _first(model: Module, batch: Batch) -> Tensor:
    if isinstance(batch, dict):
        raise TrainingError(f"predict: expected batches that are tuples, got dicts of {sorted(batch)}; give forward=")
    return cast(Model, model).forward(batch[0])


def _loader(data: Data) -> Loader:
    if isinstance(data, DataLoader | StreamLoader):
        return data
    if isinstance(data, np.ndarray):
        data = ArrayDataset(data)
    elif isinstance(data, tuple):
        data = ArrayDataset(*data)
    return DataLoader(data, min(ITEMS, len(data)), shuffle=False, seed=0)
