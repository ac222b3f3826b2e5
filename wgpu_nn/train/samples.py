"""Items of the validation data that the best model got wrong, for people to look at; knows neither loops nor pictures."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from wgpu_nn.nn import Module
from wgpu_nn.record import checkpoint_at, load_checkpoint
from wgpu_nn.record.module import from_arrays
from wgpu_nn.tensor import Device, Tensor
from wgpu_nn.train.feed import Loader, Streamed, keyed
from wgpu_nn.train.folder import SAMPLES, write_arrays
from wgpu_nn.train.history import EpochRecord
from wgpu_nn.train.step import Batch, StepFunction, checked, device_of


def write_samples(folder: Path, model: Module, step: StepFunction, data: Loader, best: EpochRecord, most: int) -> None:
    """Write samples.npz: up to ``most`` items of which the class of highest score is not the target, as of the ``best`` epoch.

    ``inputs`` [n, ...], ``target`` [n], ``predicted`` [n], and ``score`` [n], the softmax of the predicted one. Nothing is
    written where outputs and targets are not those of classes, or the best epoch's checkpoint is gone.
    """
    found = checkpoint_at(folder, best.step)
    if found is None:
        return
    resting = model.valid()
    resting.load_state(from_arrays(load_checkpoint(found).tensors["model"]))
    wrong = misclassified(lambda batch: _classes(step, resting, batch), data, device_of(resting), most)
    if wrong:
        write_arrays(folder / SAMPLES, wrong)


Classes = tuple[np.ndarray, np.ndarray]  # scores [n, classes], targets [n]


def misclassified(
    classify: Callable[[Batch], Classes | None], data: Loader, device: Device, most: int
) -> dict[str, np.ndarray]:
    """Return the first ``most`` items that ``classify`` gets wrong, as arrays by name; none where it knows no classes."""
    parts: list[dict[str, np.ndarray]] = []
    count = 0
    with closing(Streamed(data, device).epoch(0)) as batches:
        for batch, _ in batches:
            found = classify(batch)
            if found is None:
                return {}
            scores, targets = found
            wrong = np.flatnonzero(scores.argmax(1) != targets)[: most - count]
            if not len(wrong):
                continue
            shifted = np.exp(scores - scores.max(1, keepdims=True))
            inputs = next(iter(keyed(batch).values()))
            assert isinstance(inputs, Tensor)
            parts.append(
                {
                    "inputs": inputs.numpy()[wrong],
                    "target": targets[wrong],
                    "predicted": scores.argmax(1)[wrong],
                    "score": (shifted.max(1) / shifted.sum(1))[wrong],
                }
            )
            count += len(wrong)
            if count == most:
                break
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _classes(step: StepFunction, model: Module, batch: Batch) -> Classes | None:
    out = checked(step(model, batch))
    if out.outputs is None or out.targets is None or out.outputs.rank != 2 or out.targets.rank != 1:
        return None
    targets = out.targets.numpy()
    return (out.outputs.numpy(), targets) if targets.dtype.kind in "iu" else None
