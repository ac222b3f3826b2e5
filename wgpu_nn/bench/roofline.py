"""Measures what an adapter moves and computes at the most, in the run whose numbers are then divided by it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.kernels import copy
from wgpu_nn.kernels.peak import FLOPS, run_peak
from wgpu_nn.kernels.plan import MOST_TURNS
from wgpu_nn.tensor import Device, tensor

LONG = 0.02  # seconds of one measurement: long against a launch
TAKES = 7
MEGA = 1 << 20


@dataclass(frozen=True, slots=True)
class Roofline:
    """Bytes a second of a copy, read and write counted, and operations a second of multiply-adds in registers."""

    bandwidth: float
    flops: float
    copied: int  # bytes of the copy's source

    def shares(self, flops: float, moved: float, seconds: float) -> tuple[float, float]:
        """Return the shares of the peak and of the bandwidth that work done in ``seconds`` reaches."""
        return flops / seconds / self.flops, moved / seconds / self.bandwidth


def measure(device: Device) -> Roofline:
    """Return the fastest of a few takes of each; a GPU's copy must not fit into its caches."""
    root = device.root
    assert isinstance(root, Wgpu)
    software = root.target.software
    nbytes = (16 if software else 256) * MEGA
    source = tensor(np.ones(nbytes // 4, np.float32), device).root
    copied = _fastest(device, lambda: copy(root, source), 2.0 * nbytes)
    items = (1 << 12) if software else (1 << 20)
    factors, out = tensor(np.array([0.5, 1.0], np.float32), device).root, root.empty((items,), source.dtype)
    burn = lambda turns: functools.partial(run_peak, root, factors, turns, out)
    turns = 64
    while turns < MOST_TURNS // 4 and _seconds(device, burn(turns), 1) < LONG / 4:
        turns *= 2
    flops = _fastest(device, burn(turns), float(FLOPS * items * turns))
    return Roofline(copied, flops, nbytes)


def _seconds(device: Device, work: Callable[[], object], count: int) -> float:
    device.sync()
    start = time.perf_counter()
    for _ in range(count):
        work()
    device.sync()
    return (time.perf_counter() - start) / count


def _fastest(device: Device, work: Callable[[], object], done: float) -> float:
    """Return ``done`` over the seconds of a piece of work."""
    _seconds(device, work, 2)
    count = min(max(round(LONG / _seconds(device, work, 2)), 1), 1000)
    return done / min(_seconds(device, work, count) for _ in range(TAKES))
