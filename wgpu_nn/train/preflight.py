"""What can be known before the first step: whether batches pass through model, loss and metrics; changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, nullcontext
from typing import cast

from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.errors import CaptureError, TrainingError, WgpuNNError
from wgpu_nn.graph import Trace
from wgpu_nn.metrics import Metric
from wgpu_nn.nn import CrossEntropyLoss, Module
from wgpu_nn.tensor import Device, Tensor
from wgpu_nn.train.feed import Feed
from wgpu_nn.train.step import Batch, Output, StepFunction, checked, device_of

LABELS = 1  # where a batch of (inputs, targets) has its class labels


def preflight(what: str, model: Module, step: StepFunction, feed: Feed, metrics: Sequence[Metric]) -> Output | None:
    """Let the first batch of ``feed`` pass through the model at rest, and return its output, or None if there is no batch.

    On a GPU the ops are only traced: shapes and kinds come out, and nothing runs. Raises TrainingError, naming ``what``
    data, if the batch does not pass.
    """
    device = device_of(model)
    below = device.inner() if device.is_autodiff else device
    root, stream = below.root, below.rng.stream
    trace = Trace(root.dtypes, root.spec) if isinstance(root, Wgpu) else None
    try:
        with closing(feed.epoch(0)) as batches:
            given = next(batches, None)
        if given is None:
            return None
        with root.recording(trace) if isinstance(root, Wgpu) else nullcontext():
            batch = _moved(feed.batch(given[0]), below)
            out = checked(step(model.valid(), batch))
            if metrics and (out.outputs is None or out.targets is None):
                raise TrainingError("metrics: expected a step whose Output has outputs and targets, got one without")
            for metric in metrics:
                metric.statistics(cast(Tensor, out.outputs), cast(Tensor, out.targets))
        return out
    except CaptureError:
        raise  # says itself what a step may not do
    except WgpuNNError as error:
        raise TrainingError(
            f"fit: expected that the first batch of the {what} data passes through model, loss and metrics, got "
            f"{type(error).__name__}: {error}; compare the data's shapes with the model's"
        ) from error
    finally:
        below.rng.stream = stream
        if trace is not None:
            trace.open = False


def check_labels(feed: Feed, loss: object, out: Output | None) -> None:
    """Let ``feed`` refuse labels that are no class, where ``loss`` is one of classes: the model's outputs say how many."""
    if isinstance(loss, CrossEntropyLoss) and out is not None and out.outputs is not None:
        feed.limit(LABELS, out.outputs.shape[1])


def _moved(batch: Batch, device: Device) -> Batch:
    def moved(t: Tensor) -> Tensor:
        return t.inner() if t.device.is_autodiff else t if t.device == device else t.to(device)

    if isinstance(batch, dict):
        return {name: moved(t) for name, t in batch.items()}
    return tuple(moved(t) for t in batch)
