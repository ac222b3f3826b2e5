"""Kills training runs at random moments, resumes them, and compares them with one that was left alone.

``python -m tests.kills 1000`` does so a thousand times. Every run is killed again and again until it ends by itself; then
its weights, bit for bit, and its log must be those of the run that nobody killed. A kill is SIGKILL: by the clock, or by
the run itself right before the n-th call that changes the disk, so that many fall into the writing of checkpoints.
Processes are forked from one that has imported everything, which makes several kills a second.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # no threads before the fork

import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from wgpu_nn import Config, Device, Module, Tensor
from wgpu_nn.data import ArrayDataset, DataLoader
from wgpu_nn.metrics import Accuracy
from wgpu_nn.nn import CrossEntropyLossConfig, Dropout, DropoutConfig, Linear, LinearConfig
from wgpu_nn.optim import AdamConfig, CosineSchedule
from wgpu_nn.train import Learner, read_log

EPOCHS = 4
CLOCKED = ("seconds", "items_per_s")  # of a line of the log: what a clock decides


class Tiny(Module):
    """A model of a few weights, with dropout, so that the random sequence matters."""

    dropout: Dropout
    linear: Linear

    def forward(self, x: Tensor[2]) -> Tensor[2]:
        return self.linear.forward(self.dropout.forward(x))


class Variant(Config):
    """How a run is trained."""

    accumulate: int
    checkpoint_every: int | None


VARIANTS = [Variant(1, 2), Variant(2, 2), Variant(3, None)]


def train(run: Path, variant: Variant) -> None:
    """Train in the folder, or go on there; the end is ``model.safetensors``."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(23, 5)).astype(np.float32), rng.integers(0, 4, 23)
    device = Device("numpy")
    device.seed(3)
    model = Tiny(dropout=DropoutConfig(0.3).init(), linear=LinearConfig(5, 4).init(device.autodiff()))
    learner = Learner(
        model,
        AdamConfig().init(),
        CrossEntropyLossConfig().init(),
        [Accuracy()],
        schedule=CosineSchedule(0.05, 30, warmup=3),
        accumulate=variant.accumulate,
        clip_norm=1.0,
    )
    data = DataLoader(ArrayDataset(x, y), 4, shuffle=True, seed=1)
    every = variant.checkpoint_every
    learner.fit(data, data, EPOCHS, run=run, config=variant, resume=True, checkpoint_every=every)


def forked(action: Callable[..., object], *args: object) -> int:
    """Run ``action(*args)`` in a process of its own, and return that process's number."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        action(*args)
        code = 0
    except BaseException as error:
        print(f"kills: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def ended(number: int) -> bool:
    """Wait for a process; say whether it came to its end, and was not killed. Raises if it failed."""
    _, status = os.waitpid(number, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    if os.waitstatus_to_exitcode(status):
        raise AssertionError(f"a run ended with status {status}")
    return True


def killed_before_change(run: Path, variant: Variant, number: int) -> None:
    """Train, and be killed right before the ``number``-th call that changes the disk."""
    left = number

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **more)

        return wrapped

    for name in ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))
    train(run, variant)


def outcome(run: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """Return what a run came to: its model's bytes, and its log without what a clock decides."""
    lines = [{k: v for k, v in line.items() if k not in CLOCKED} for line in read_log(run / "metrics.jsonl")]
    return (run / "model.safetensors").read_bytes(), lines


def kill(count: int, folder: Path, seed: int = 0) -> tuple[int, int]:
    """Kill runs ``count`` times in all; return how many were killed by the clock, and while they changed the disk.

    Raises AssertionError if one cannot be resumed, or comes to anything else than the run that nobody killed.
    """
    rng = random.Random(seed)
    expected: list[tuple[bytes, list[dict[str, Any]]]] = []
    seconds = 0.0
    for i, variant in enumerate(VARIANTS):
        begun = time.perf_counter()
        assert ended(forked(train, folder / f"whole-{i}", variant))
        seconds = max(seconds, time.perf_counter() - begun)
        expected.append(outcome(folder / f"whole-{i}"))
    kills = [0, 0]
    runs = 0
    while sum(kills) < count:
        which = runs % len(VARIANTS)
        runs += 1
        run, variant = folder / f"run-{runs}", VARIANTS[which]
        while True:
            within = rng.random() < 0.5
            if sum(kills) >= count:
                number = forked(train, run, variant)
            elif within:
                number = forked(killed_before_change, run, variant, rng.randrange(200))
            else:
                number = forked(train, run, variant)
                time.sleep(rng.random() * seconds)
                os.kill(number, signal.SIGKILL)  # it may have ended: it is not waited for yet, so the number is its own
            if ended(number):
                break
            kills[within] += 1
        assert outcome(run) == expected[which], f"run {runs} of {variant} differs after {sum(kills)} kills"
        shutil.rmtree(run)
    return kills[0], kills[1]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as found:
        begun = time.perf_counter()
        by_clock, by_change = kill(int(sys.argv[1]), Path(found), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
        took = time.perf_counter() - begun
        print(f"{by_clock} runs killed by the clock, {by_change} at a change of the disk; all resumed, {took:.0f} s")
