"""One training step and one evaluation of a classifier; knows neither epochs nor files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Protocol, TypeAlias, cast

from wgpu_nn.data import DataLoader
from wgpu_nn.errors import TrainingError
from wgpu_nn.nn import Module
from wgpu_nn.optim import Optimizer
from wgpu_nn.tensor import Device, Tensor
from wgpu_nn.train.feed import Feed, Given, Streamed
from wgpu_nn.train.metrics import Metrics, Sums, Window

Step: TypeAlias = "Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]"
"""(images, targets) -> (mean loss [], count of correct answers [] Int)."""

FedStep: TypeAlias = "Callable[[Given], object]"
"""What a feed yields -> nothing that is looked at: its numbers are in a window."""


class Classifier(Protocol):
    """What the loop asks of a model beyond being a Module: class scores for a batch of inputs."""

    def forward(self, images: Tensor, /) -> Tensor: ...


class Loss(Protocol):
    """What compares class scores with the right classes: a mean over the batch."""

    def forward(self, logits: Tensor, targets: Tensor, /) -> Tensor: ...


def training_step(model: Module, optimizer: Optimizer, loss: Loss) -> Step:
    """Return the function that a training run calls for each batch: forward, backward, and a step of the optimizer.

    Its inputs live on the model's autodiff device, its results on the device below. Nothing in it waits for the device,
    and all that it changes is the model, the optimizer and the device's random sequence.
    """
    classifier = cast(Classifier, model)

    def step(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = classifier.forward(images)
        cost = loss.forward(logits, targets)
        optimizer.step(model, cost.backward())
        return cost.inner(), count_correct(logits.inner(), targets.inner())

    return step


def fed(step: Step, feed: Feed, window: Window) -> FedStep:
    """Return ``step`` with its batch from ``feed``, and followed by putting down what it measured; the caller notes the
    items."""

    def whole(given: Given) -> None:
        window.put(*step(*feed.batch(given)))

    return whole


def count_correct(logits: Tensor, targets: Tensor) -> Tensor:
    """[batch, classes], [batch] Int -> [] Int: how often the highest score is that of the target."""
    return (logits.argmax(1) == targets).int().sum()


def testing_step(model: Module, loss: Loss) -> Step:
    """Return the function that an evaluation calls for each batch: what ``model`` makes of it at rest, without dropout.

    Its inputs and results live on the device below the model's, if that is an autodiff one.
    """

    def step(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = cast(Classifier, model.valid()).forward(images)
        return loss.forward(logits, targets), count_correct(logits, targets)

    return step


def evaluate(
    step: Step,
    batches: DataLoader,
    where: Device,
    each: Callable[[int], object] = lambda done: None,
) -> Metrics:
    """Return the mean loss and the accuracy over a data set of what ``step`` computes on the device ``where``.

    ``each`` is called with the number of batches done; what it raises ends the evaluation.
    """
    feed, window = Streamed(batches, where), Window(where)
    return total(fed(step, feed, window), feed, window, each)


def total(step: FedStep, feed: Feed, window: Window, each: Callable[[int], object]) -> Metrics:
    """Return what ``step`` puts into ``window`` over one epoch of ``feed``, added up; see ``evaluate``."""
    sums = Sums()
    window.clear()
    with closing(feed.epoch(0)) as batches:
        for done, (given, items) in enumerate(batches, start=1):
            step(given)
            window.note(items)
            for value in window.turn():
                sums.add(value)
            each(done)
    for value in window.read():
        sums.add(value)
    return sums.metrics()


def device_of(model: Module) -> Device:
    """Return where a model's parameters are; raise if it has none."""
    device = model.device
    if device is None:
        raise TrainingError(f"train: expected a model with parameters, got {type(model).__name__} without any")
    return device
