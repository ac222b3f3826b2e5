"""Observes a stream: times every launch by timestamps, in a pass of its own, and notes when the host submitted it.

The stream asks whether there is an observer once a batch; without one, nothing else is done for it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import wgpu
from wgpu.backends.wgpu_native._api import new_struct_p

from wgpu_nn.errors import DeviceError
from wgpu_nn.gpu.commands import Grid, Launch, Observer, encode
from wgpu_nn.gpu.kernel import Kernel
from wgpu_nn.gpu.native import ffi, lib, libf
from wgpu_nn.gpu.pool import Segment

if TYPE_CHECKING:
    from wgpu_nn.gpu.device import Gpu

QUERIES = 4096  # of a set, at most: two a launch
WAITING = 32  # sets of queries after which their times are read, which waits for the device


class Launched(NamedTuple):
    """One launch: its kernel, parameters (none if sizes are constants) and workgroups; ``nbytes`` of buffers bound.

    ``start`` and ``end`` are seconds on the GPU's clock; ``submit`` is the number of the submit that it came with.
    """

    kernel: Kernel
    params: bytes
    grid: Grid
    nbytes: int
    submit: int
    start: float
    end: float


@dataclass(slots=True)
class Submit:
    """Seconds on the host's clock from the start of encoding to the return of the submit, and the launches in it."""

    start: float
    end: float
    launches: int


class _Asked(NamedTuple):
    """Launches whose times are in a buffer that is not read yet."""

    ticks: wgpu.GPUBuffer
    queries: wgpu.GPUQuerySet
    launches: list[tuple[Kernel, bytes, Grid, int]]
    submit: int


class Profile:
    """A context in which a device's launches are recorded: ``with Profile(gpu) as found: ...; found.launched``.

    Passes of their own keep launches from overlapping, so that a profiled run is slower than another.
    """

    def __init__(self, gpu: Gpu) -> None:
        if "timestamp-query" not in gpu.features:
            raise DeviceError(
                f"profile: {gpu.adapter} has no timestamps (feature timestamp-query); use another adapter"
            )
        self._gpu = gpu
        self.launched: list[Launched] = []
        self.submits: list[Submit] = []
        self._asked: list[_Asked] = []
        self._bytes: dict[int, int] = {}  # by bind group
        self._kernels: dict[int, Kernel] = {}  # by pipeline
        self._began: float | None = None
        self._before: Observer | None = None
        self._count = 0

    def __enter__(self) -> Profile:
        self._gpu.stream.flush()
        self._before, self._gpu.stream.observer = self._gpu.stream.observer, self
        return self

    def __exit__(self, *error: object) -> None:
        self._gpu.stream.sync()
        self._gpu.stream.observer = self._before
        self._read()

    # --- what the stream calls, under its lock -----------------------------------------------------------------------
    def bound(self, group: Any, kernel: Kernel, places: Sequence[Segment]) -> None:
        """Note how many bytes a bind group binds; in eager mode it may be another number next time."""
        self._bytes[_address(group)] = sum(p.nbytes for p in places)

    def encode(self, encoder: Any, launches: Sequence[Launch]) -> None:
        """Write launches into an encoder, a pass each, and ask for their times."""
        if self._began is None:
            self._began = time.perf_counter()
        for first in range(0, len(launches), QUERIES // 2):
            self._encode(encoder, launches[first : first + QUERIES // 2])

    def submitted(self) -> None:
        """Note that what was encoded since the last call is on its way."""
        now = time.perf_counter()
        self.submits.append(Submit(now if self._began is None else self._began, now, self._count))
        self._began, self._count = None, 0
        if len(self._asked) > WAITING:
            self._read()

    def _encode(self, encoder: Any, launches: Sequence[Launch]) -> None:
        device, count = self._gpu.raw, 2 * len(launches)
        queries = device.create_query_set(type="timestamp", count=count)
        usage = wgpu.BufferUsage.QUERY_RESOLVE | wgpu.BufferUsage.COPY_SRC
        ticks = device.create_buffer(size=8 * count, usage=usage)
        described: list[tuple[Kernel, bytes, Grid, int]] = []
        for n, launch in enumerate(launches):
            marks = new_struct_p(
                "WGPUPassTimestampWrites *",
                querySet=queries._internal,
                beginningOfPassWriteIndex=2 * n,
                endOfPassWriteIndex=2 * n + 1,
            )
            compute = libf.wgpuCommandEncoderBeginComputePass(
                encoder, new_struct_p("WGPUComputePassDescriptor *", timestampWrites=marks)
            )
            encode(compute, [launch])
            lib.wgpuComputePassEncoderEnd(compute)
            lib.wgpuComputePassEncoderRelease(compute)
            pipeline, group, offset, grid = launch
            params = self._gpu.stream.parameters(offset) if offset >= 0 else b""
            described.append((self._kernel(pipeline), params, grid, self._bytes.get(_address(group), 0)))
        libf.wgpuCommandEncoderResolveQuerySet(encoder, queries._internal, 0, count, ticks._internal, 0)
        self._asked.append(_Asked(ticks, queries, described, len(self.submits)))
        self._count += len(launches)

    def _kernel(self, pipeline: Any) -> Kernel:
        address = _address(pipeline)
        if address not in self._kernels:
            self._kernels = {_address(raw): kernel for kernel, raw in self._gpu.compiled()}
        return self._kernels[address]

    def _read(self) -> None:
        period = libf.wgpuQueueGetTimestampPeriod(self._gpu.raw.queue._internal) * 1e-9
        for asked in self._asked:
            found = np.frombuffer(self._gpu.raw.queue.read_buffer(asked.ticks), np.uint64).astype(np.float64) * period
            for described, start, end in zip(asked.launches, found[::2], found[1::2], strict=True):
                self.launched.append(Launched(*described, asked.submit, float(start), float(end)))
        self._asked.clear()


def _address(raw: Any) -> int:
    return int(ffi.cast("uintptr_t", raw))
