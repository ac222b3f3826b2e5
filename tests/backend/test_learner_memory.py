"""A long run takes no more memory than a short one; accumulation on the GPU is that of the CPU, and captured that of eager.

WGPU_NN_STEPS=20000 runs the first test at its full length: some minutes.
"""

from __future__ import annotations

import gc
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trial import Trial
from wgpu_nn import Config, Device
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.data import ArrayDataset, DataLoader
from wgpu_nn.gpu import Gpu
from wgpu_nn.metrics import Accuracy
from wgpu_nn.nn import CrossEntropyLossConfig, LinearConfig
from wgpu_nn.optim import AdamConfig, CosineSchedule
from wgpu_nn.train import Callback, EpochRecord, Learner, Session
from wgpu_nn.train.progress import Silent, Snapshot

STEPS = int(os.environ.get("WGPU_NN_STEPS", "1000"))
BATCHES = 50


class Empty(Config):
    """Nothing tells these runs apart."""


def trial(device: Device, run: Path, **more: Any) -> Trial:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, 8 * BATCHES)
    x = (rng.normal(size=(len(y), 6)) + y[:, None]).astype(np.float32)
    device.seed(3)
    learner = Learner(
        LinearConfig(6, 3).init(device.autodiff()),
        AdamConfig().init(),
        CrossEntropyLossConfig().init(),
        [Accuracy()],
        schedule=CosineSchedule(0.01, 2000, warmup=10),
        clip_norm=1.0,
        **more,
    )
    data = DataLoader(ArrayDataset(x, y), 8, shuffle=True, seed=1)
    return Trial(learner, data, data, run, Empty())


@pytest.mark.parametrize("keep", [None, False], ids=["kept", "streamed"])
def test_the_pool_holds_after_many_steps_what_it_held_after_few(gpu_device: Device, tmp_path: Path, keep: bool | None):
    device = Device.of(Wgpu(Gpu(gpu_device.gpu.adapter)))  # its own: other tests' garbage would come back to its pool
    made = trial(device, tmp_path, keep_on_device=keep)
    seen: dict[int, tuple[int, ...]] = {}

    def look(session: Session, number: int) -> None:
        if number in (max(STEPS // 20, 4 * BATCHES), STEPS):
            gc.collect()  # what was traced lies in cycles, which go when Python gets to it
            stats = device.gpu.pool.stats()
            seen[number] = (stats.live_bytes, stats.pooled_bytes, stats.blocks, stats.created)

    made.after = look
    made.fit(STEPS // BATCHES)
    assert len(seen) == 2 and len(set(seen.values())) == 1, seen
    device.gpu.destroy()


def test_the_host_holds_after_many_epochs_what_it_held_after_few(tmp_path: Path):
    held: list[int] = []

    class Looking(Callback):
        def on_epoch(self, session: Session, record: EpochRecord) -> None:
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])

    made = trial(Device("numpy"), tmp_path, callbacks=[Looking()])
    made.train = made.valid = DataLoader(made.train.dataset, 80, shuffle=True, seed=1)
    tracemalloc.start()
    try:
        made.fit(12)
    finally:
        tracemalloc.stop()
    assert held[-1] - held[3] < 8 * 4096, held  # a record an epoch; an epoch's batches are 10,000 bytes


@pytest.mark.parametrize("accumulate", [1, 3])
def test_captured_and_eager_steps_on_the_gpu_agree_with_the_cpu(gpu_device: Device, tmp_path: Path, accumulate: int):
    found: list[np.ndarray] = []
    for name, device, more in (
        ("captured", gpu_device, {}),
        ("eager", gpu_device, {"capture": False}),
        ("cpu", Device("numpy"), {}),
    ):
        made = trial(device, tmp_path / name, accumulate=accumulate, **more)
        made.fit(1)
        found.append(made.model.state()["weight"].numpy())
    # Fifty steps of Adam in single precision, whose divisions are a few units in the last place apart.
    for weight in found[:2]:
        np.testing.assert_allclose(weight, found[2], rtol=1e-4, atol=1e-6)


def test_a_captured_step_with_accumulation_launches_no_more_in_later_epochs(gpu_device: Device, tmp_path: Path):
    made = trial(gpu_device, tmp_path, accumulate=4)
    history = made.fit(3).history
    assert history[2].launches_per_step == history[1].launches_per_step


def test_what_is_shown_of_launches_is_that_of_whole_steps(
    gpu_device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("wgpu_nn.train.window.READ_SECONDS", 0.0)  # each step is asked for, and shown when it comes
    monkeypatch.setattr("wgpu_nn.train.session.SHOW_SECONDS", 0.0)
    seen: list[Snapshot] = []

    class Watching(Silent):
        def update(self, now: Snapshot) -> None:
            seen.append(now)

    made = trial(gpu_device, tmp_path)
    last = made.fit(2, show=Watching()).history[1].launches_per_step
    later = [now for now in seen if now.epoch == 2]
    assert any(now.testing is not None for now in later) and any(now.testing is None for now in later)
    assert {now.launches_per_step for now in later} == {last}


def test_half_precision_learns_and_resumes_bit_for_bit(gpu_device: Device, tmp_path: Path):
    def made(run: str) -> Trial:
        return trial(gpu_device, tmp_path / run, precision="f16", accumulate=2)

    whole, half = made("whole"), made("half")
    history = whole.fit(4).history
    assert history[-1].valid["accuracy"] > 0.6 and history[-1].valid["loss"] < 0.8 * history[0].train["loss"]
    half.fit(2)
    resumed = made("half")
    resumed.fit(4, resume=True)
    assert resumed.weights() == whole.weights()
    exact = trial(gpu_device, tmp_path / "exact", accumulate=2)
    exact.fit(4)
    weight, reference = (t.model.state()["weight"].numpy() for t in (whole, exact))
    np.testing.assert_allclose(weight, reference, atol=0.02)  # halves have eleven bits
    assert not np.array_equal(weight, reference)
