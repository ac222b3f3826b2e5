"""How long launches take on the GPU, by its own clock; submits by itself, after all that was submitted before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import wgpu

from wgpu_nn.errors import DeviceError
from wgpu_nn.gpu.commands import Bound, encode
from wgpu_nn.gpu.native import libf

if TYPE_CHECKING:
    from wgpu_nn.gpu.device import Gpu

FEATURE = "timestamp-query"
PASSES = 1024  # a query set has 4096 queries at most


def timed(gpu: Gpu, launches: Sequence[Bound]) -> list[float]:
    """Run bound launches once, a pass each, and return the seconds that the GPU took for every one.

    Raises DeviceError where the adapter has no timestamps.
    """
    if FEATURE not in gpu.features:
        raise DeviceError(f"timestamps: {gpu.adapter} has none (feature {FEATURE})")
    found: list[float] = []
    for start in range(0, len(launches), PASSES):
        found += _timed(gpu, launches[start : start + PASSES])
    return found


def _timed(gpu: Gpu, launches: Sequence[Bound]) -> list[float]:
    device, queue, count = gpu.raw, gpu.raw.queue, 2 * len(launches)
    queries = device.create_query_set(type="timestamp", count=count)
    usage = wgpu.BufferUsage.QUERY_RESOLVE | wgpu.BufferUsage.COPY_SRC
    ticks = device.create_buffer(size=8 * count, usage=usage)
    encoder = device.create_command_encoder()
    for n, bound in enumerate(launches):
        marks = {"query_set": queries, "beginning_of_pass_write_index": 2 * n, "end_of_pass_write_index": 2 * n + 1}
        compute = encoder.begin_compute_pass(timestamp_writes=marks)  # pyright: ignore[reportArgumentType]
        encode(compute._internal, [bound.launch])
        compute.end()
    encoder.resolve_query_set(queries, 0, count, ticks, 0)
    queue.submit([encoder.finish()])
    gpu.counts.submits += 1
    gpu.counts.launches += len(launches)
    found = np.frombuffer(queue.read_buffer(ticks), np.uint64).astype(np.float64)
    period = libf.wgpuQueueGetTimestampPeriod(queue._internal)
    return list((found[1::2] - found[::2]) * period * 1e-9)
