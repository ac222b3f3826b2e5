"""One training step and one evaluation of a classifier; knows neither epochs nor files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Protocol, TypeAlias, cast

from wgpu_nn.data import DataLoader
from wgpu_nn.errors import TrainingError
from wgpu_nn.nn import Module
from wgpu_nn.optim import Optimizer
from wgpu_nn.tensor import Device, Tensor, tensor
from wgpu_nn.train.metrics import Metrics, Sums, Window

Step: TypeAlias = "Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]"
"""(images, targets) -> (mean loss [], count of correct answers [] Int)."""


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


def count_correct(logits: Tensor, targets: Tensor) -> Tensor:
    """[batch, classes], [batch] Int -> [] Int: how often the highest score is that of the target."""
    return (logits.argmax(1) == targets).int().sum()


def evaluate(
    model: Module,
    loss: Loss,
    batches: DataLoader,
    device: Device | None = None,
    each: Callable[[int], object] = lambda done: None,
) -> Metrics:
    """Return the mean loss and the accuracy of ``model`` at rest (no dropout, nothing recorded) over a data set.

    It runs where the model is, or on ``device``, to which a copy is taken. ``each`` is called with the number of
    batches done; what it raises ends the evaluation.
    """
    resting = model.valid() if device is None else model.valid().to_device(device)
    where = device_of(resting)
    classifier = cast(Classifier, resting)
    window, sums = Window(where), Sums()
    with closing(batches.epoch(0)) as reading:
        for done, (images, targets) in enumerate(reading, start=1):
            expected = tensor(targets, where)
            logits = classifier.forward(tensor(images, where))
            window.add(loss.forward(logits, expected), count_correct(logits, expected), len(targets))
            if window.due:
                for value in window.read():
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
