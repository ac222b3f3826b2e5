"""Our engines of ``bench step``: the spec page's CNN, captured or eager; what they are measured for, step.py knows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import wgpu_nn
from wgpu_nn.bench.engine import Facts, Label
from wgpu_nn.bench.facts import facts_of
from wgpu_nn.bench.step_work import CLASSES, DROPOUT, HIDDEN, INFER, RATE, STEPS, TRAIN, drawn
from wgpu_nn.bench.timing import Round, time_round
from wgpu_nn.errors import DeviceError
from wgpu_nn.models import Model, ModelConfig
from wgpu_nn.nn import CrossEntropyLossConfig
from wgpu_nn.optim import AdamConfig
from wgpu_nn.tensor import Device, Tensor, tensor
from wgpu_nn.train import Captured, capture

TOGETHER = 16  # calls that share a submit, in the rows of that name

Work = Callable[[], Tensor]


def model_of(device: Device, batch: int, dropout: float) -> tuple[Model, Tensor, Tensor]:
    """Return the model with the drawn parameters, and the drawn images and labels, all on ``device``."""
    params, images, labels = drawn(batch)
    model = ModelConfig(CLASSES, HIDDEN).with_dropout(dropout).init(device)
    # Our linear weights are [in, out].
    state = {k: v.T if v.ndim == 2 else v for k, v in params.items()}
    model.load_state({k: tensor(v, device) for k, v in state.items()})
    return model, tensor(images, device), tensor(labels, device)


def training(
    device: Device, batch: int, dropout: float, fuse: bool | None, together: int = 1
) -> tuple[Work, Captured[..., Tensor] | None]:
    """Return one training step, [] the loss; ``fuse`` None is eager mode."""
    model, images, labels = model_of(device, batch, dropout)
    optimizer, loss = AdamConfig().with_lr(RATE).init(), CrossEntropyLossConfig().init()

    def step(x: Tensor, y: Tensor) -> Tensor:
        cost = loss.forward(model.forward(x), y)
        optimizer.step(model, cost.backward())
        return cost.inner()

    if fuse is None:
        return lambda: step(images, labels), None
    captured = capture(state=[model, optimizer], fuse=fuse, calls_per_submit=together)(step)
    return lambda: captured(images, labels), captured


def inference(device: Device, batch: int, together: int) -> tuple[Work, Captured[..., Tensor]]:
    """Return one captured forward pass, [batch, classes]."""
    model, images, _ = model_of(device, batch, DROPOUT)
    at_rest, x = model.valid(), images.inner()
    captured = capture(state=[at_rest], calls_per_submit=together)(at_rest.forward)
    return lambda: captured(x), captured


class Ours:
    """An engine on our device."""

    def __init__(self, label: Label, device: Device, batch: int, fuse: bool | None = None, together: int = 1) -> None:
        self.label, self._device, self._batch, self._fuse, self._together = label, device, batch, fuse, together
        self._timed: tuple[Work, Captured[..., Tensor] | None] | None = None

    @property
    def _work(self) -> tuple[Work, Captured[..., Tensor] | None]:
        if self._timed is None:
            if self.label.work == INFER:
                self._timed = inference(self._device, self._batch, self._together)
            else:
                self._timed = training(self._device, self._batch, DROPOUT, self._fuse, self._together)
        return self._timed

    def outcome(self) -> list[float]:
        """Return the losses of the first steps without dropout; inference gives that of the first."""
        if self.label.work == INFER:
            scores = self._work[0]().numpy().astype(np.float64)
            labels = drawn(self._batch)[2]
            shifted = scores - scores.max(1, keepdims=True)
            picked = shifted[np.arange(self._batch), labels] - np.log(np.exp(shifted).sum(1))
            return [float(-picked.mean())]
        step, _ = training(self._device, self._batch, 0.0, self._fuse, self._together)
        return [float(step()) for _ in range(STEPS)]

    def facts(self) -> Facts:
        work, captured = self._work
        return facts_of(self._device, work, captured)

    def round(self, steps: int) -> Round:
        return time_round(self._work[0], self._device.sync, steps)


def engines(device: Device, batch: int) -> list[Ours]:
    """Return our rows; ``device`` is an autodiff one."""
    return [
        Ours(Label("captured", "captured", TRAIN), device, batch, True),
        Ours(Label("captured-together", f"captured, {TOGETHER} a submit", TRAIN), device, batch, True, TOGETHER),
        Ours(Label("captured-unfused", "captured, unfused", TRAIN), device, batch, False),
        Ours(Label("eager", "eager", TRAIN), device, batch),
        Ours(Label("inference", "captured inference", INFER), device, batch),
        Ours(Label("inference-together", f"inference, {TOGETHER} a submit", INFER), device, batch, together=TOGETHER),
    ]


def reference(batch: int) -> list[float]:
    """Return the losses of the first steps without dropout as NumPy computes them."""
    step, _ = training(Device("numpy").autodiff(), batch, 0.0, None)
    return [float(step()) for _ in range(STEPS)]


# --- the first call --------------------------------------------------------------------------------------------------
FIRST = (
    "import sys, time; start = time.perf_counter(); from wgpu_nn.bench.step_ours import first_step; "
    "first_step(start, sys.argv[1], int(sys.argv[2]))"
)


def first_step(start: float, device_name: str, batch: int) -> None:
    """Print as JSON the seconds since ``start`` after import, after the device is open, and after one captured step."""
    imported = time.perf_counter() - start
    device = Device(device_name).autodiff()
    opened = time.perf_counter() - start
    step, _ = training(device, batch, DROPOUT, True)
    float(step())
    done = time.perf_counter() - start
    pipelines = device.gpu.counts.pipelines
    print(json.dumps({"import_s": imported, "device_s": opened, "step_s": done, "pipelines": pipelines}))


def first_call(device_name: str, batch: int) -> dict[str, float]:
    """Run ``first_step`` in a fresh interpreter. What the driver keeps on disk of earlier runs, it may use."""
    paths = [str(Path(wgpu_nn.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", FIRST, device_name, str(batch)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise DeviceError(f"bench step: a fresh interpreter failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return json.loads(done.stdout.splitlines()[-1])
