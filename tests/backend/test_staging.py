"""Uploads through mapped memory, in the order in which they were recorded."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from wgpu_nn.gpu import Gpu, choose
from wgpu_nn.gpu.staging import LARGEST, MOST_BYTES, SMALLEST, Staging
from wgpu_nn.tensor import Device, tensor


def floats(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(n, np.float32)


@pytest.mark.parametrize("n", [1, 3, SMALLEST // 4 - 1, SMALLEST // 4 + 1, LARGEST // 4, LARGEST // 4 + 1, LARGEST])
def test_what_is_read_is_what_was_uploaded(gpu_device: Device, n: int) -> None:
    given = floats(n)
    assert np.array_equal(tensor(given, gpu_device).numpy(), given)


@pytest.mark.unwatched("counts submits, and a device that watches submits each upload")
def test_many_small_uploads_share_a_chunk_and_a_submit(gpu_device: Device) -> None:
    gpu = gpu_device.gpu
    gpu_device.sync()
    before = gpu.counts.copy()
    given = [floats(17, seed) for seed in range(100)]
    placed = [tensor(x, gpu_device) for x in given]
    assert gpu.counts.since(before).submits == 0
    assert all(np.array_equal(t.numpy(), x) for t, x in zip(placed, given, strict=True))


def test_uploads_and_launches_keep_their_order_whatever_their_sizes(gpu_device: Device) -> None:
    totals: list[float] = []
    kept = []
    for n in (5, LARGEST // 2, 7, LARGEST // 4, 1000):  # one of them goes by a queue write, which would overtake
        x = tensor(np.full(n, n, np.float32), gpu_device)
        kept.append((x * 2.0).max())
        del x  # its block is used again by the next upload of the size
        y = tensor(np.full(n, -1, np.float32), gpu_device)
        totals.append(float(y.min().item()))
    assert [int(k.item()) for k in kept] == [2 * n for n in (5, LARGEST // 2, 7, LARGEST // 4, 1000)]
    assert totals == [-1.0] * 5


@pytest.mark.parametrize("flushed", [True, False])
def test_chunks_come_back_and_are_bounded(gpu_device: Device, monkeypatch: pytest.MonkeyPatch, flushed: bool) -> None:
    raw = gpu_device.gpu.raw
    created: list[int] = []
    create = raw.create_buffer
    monkeypatch.setattr(
        raw, "create_buffer", lambda *a, **k: (k.get("mapped_at_creation") and created.append(k["size"])) or create(*a, **k)
    )  # fmt: skip
    given = floats(LARGEST // 4)
    for _ in range(3 * MOST_BYTES // LARGEST):
        x = tensor(given, gpu_device)
        if flushed:
            gpu_device.gpu.stream.flush()
    assert np.array_equal(x.numpy(), given)
    assert sum(created) <= MOST_BYTES


@pytest.mark.unwatched("counts submits, and a device that watches submits each upload")
def test_very_many_small_uploads_go_in_batches(gpu_device: Device) -> None:
    gpu_device.sync()
    before = gpu_device.gpu.counts.copy()
    kept = [tensor([float(n)], gpu_device) for n in range(2500)]
    assert gpu_device.gpu.counts.since(before).submits == 2
    assert [kept[n].item() for n in (0, 1023, 1024, 2499)] == [0.0, 1023.0, 1024.0, 2499.0]


def test_a_chunk_that_cannot_be_mapped_again_is_forgotten() -> None:
    gpu = Gpu(choose()[0])
    staging = Staging(gpu.raw)
    raw, start = staging.write(memoryview(b"abcd"))
    assert start == 0 and staging.write(memoryview(b"efgh")) == (raw, 16)
    sealed = staging.seal()
    assert len(sealed) == 1 and staging.seal() == []
    staging.returned(sealed[0], mapped=False)
    assert staging.write(memoryview(b"abcd"))[0] is not raw
    gpu.destroy()


def test_a_process_may_end_while_chunks_are_on_their_way() -> None:
    script = (
        "import numpy as np; from wgpu_nn import Device, tensor; d = Device('wgpu')\n"
        "for n in (3, 100000): tensor(np.ones(n, np.float32), d) + 1.0\n"
        "d.gpu.stream.flush(); x = tensor(np.ones(5, np.float32), d)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Traceback" not in done.stderr
