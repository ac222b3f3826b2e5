"""What a call of ours costs beside time: launches, submits, compiles and buffers, and each launch's GPU time."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

from wgpu_nn.bench.engine import Facts
from wgpu_nn.errors import DeviceError
from wgpu_nn.tensor import Device
from wgpu_nn.train import Captured

WARM = 3  # calls after which nothing is compiled or allocated any more
PACE = 5  # calls that tell what one takes
PROFILES = 7
BUSY = 0.1  # seconds of work before each


def facts_of(device: Device, work: Callable[[], object], captured: Captured[..., Any] | None) -> Facts:
    """Return the counts of one call in steady state, and the times of its launches if it is a captured one."""
    for _ in range(WARM):
        work()
    device.sync()
    gc.collect()
    gpu = device.gpu
    before, created = gpu.counts.copy(), gpu.pool.stats().created
    work()
    device.sync()
    since, allocated = gpu.counts.since(before), gpu.pool.stats().created - created
    launches = () if captured is None else profile(device, work, captured)
    return Facts(
        launches=since.launches,
        submits=since.submits,
        compiled=since.pipelines,
        allocated=allocated,
        device_us=sum(us for _, us in launches) if launches else None,
        launch_us=launches,
    )


def profile(device: Device, work: Callable[[], object], captured: Captured[..., Any]) -> tuple[tuple[str, float], ...]:
    """Return kernel and microseconds of each launch, medians of a few runs; nothing if the adapter has no timestamps."""
    start = time.perf_counter()
    for _ in range(PACE):  # one alone is mostly the wait for it
        work()
    device.sync()
    seconds = (time.perf_counter() - start) / PACE
    step = captured.steps[-1].step
    found: list[list[tuple[str, float]]] = []
    for _ in range(PROFILES):
        # An idle GPU lowers its clocks (an H100 to a fifth): the timed run stands in a queue of others.
        step.repeat(max(1, round(BUSY / seconds)))
        try:
            found.append(step.profile())
        except DeviceError:
            return ()
    times = [[seconds for _, seconds in run] for run in found]
    return tuple((name, statistics.median(t) * 1e6) for (name, _), t in zip(found[0], zip(*times)))
