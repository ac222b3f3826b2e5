"""Launches as data, and one command buffer of launches and copies by raw calls, in half the time of wgpu-py's objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import wgpu
from wgpu.backends.wgpu_native import GPUBindGroup

from wgpu_nn.gpu.kernel import Kernel
from wgpu_nn.gpu.native import ffi, lib, libf
from wgpu_nn.gpu.pool import Segment

Grid = tuple[int, int, int]
Launch = tuple[Any, Any, int, Grid]  # pipeline, bind group, offset of the parameters or -1, workgroups
Transfer = tuple[wgpu.GPUBuffer, int, wgpu.GPUBuffer, int, int]  # from where, to where, and how many bytes


class Bound(NamedTuple):
    """A launch that is ready to be encoded, and the bind group and pipeline that must live as long."""

    launch: Launch
    group: wgpu.GPUBindGroup
    pipeline: wgpu.GPUComputePipeline


class Prepared(NamedTuple):
    """A kernel that is compiled, and its workgroups: what remains to be said of a launch are its buffers and parameters."""

    kernel: Kernel
    pipeline: Any  # which the device keeps for as long as ``generation`` is its own
    grid: Grid
    layout: tuple[str, bool]  # the kernel's access, and whether it has parameters: what bind groups depend on
    generation: int


class Replay(NamedTuple):
    """Launches that are encoded together, and what must live until they are submitted.

    They share a pass with those before them, as a pass of their own costs as much of the host as eight launches.
    """

    launches: list[Launch]
    bound: list[Bound]

    @classmethod
    def of(cls, bound: list[Bound]) -> Replay:
        """Return the replay of bound launches."""
        return cls([b.launch for b in bound], bound)


Resource = tuple[wgpu.GPUBuffer, int, int]  # what is bound of a buffer: from where, and how many bytes


def bind_group(
    device: wgpu.GPUDevice, layout: wgpu.GPUBindGroupLayout, resources: Sequence[Resource]
) -> wgpu.GPUBindGroup:
    """Bind buffers, in order. wgpu-py's own way checks and copies a structure for each, and takes four times as long."""
    entries = ffi.new("WGPUBindGroupEntry[]", len(resources))
    for n, (buffer, offset, nbytes) in enumerate(resources):
        entry = entries[n]
        entry.binding, entry.buffer, entry.offset, entry.size = n, buffer._internal, offset, nbytes
    described = ffi.new("WGPUBindGroupDescriptor *")
    described.layout, described.entries, described.entryCount = layout._internal, entries, len(resources)
    return GPUBindGroup("", libf.wgpuDeviceCreateBindGroup(device._internal, described), device)


class Observer(Protocol):
    """What stands between a stream and its device. It is called under the stream's lock."""

    def bound(self, group: Any, kernel: Kernel, places: Sequence[Segment]) -> None:
        """Take note of what a bind group binds; in eager mode it may be something else next time."""
        ...

    def encode(self, encoder: Any, launches: Sequence[Launch]) -> None:
        """Write launches into an encoder."""
        ...

    def submitted(self) -> None:
        """Take note that what was encoded since the last call is on its way."""
        ...


class Commands:
    """Records in order. Calls on ``lib`` only record; what is wrong with them is reported when the buffer is finished."""

    __slots__ = ("_device", "_observer", "_raw")

    def __init__(self, device: wgpu.GPUDevice, observer: Observer | None = None) -> None:
        self._device, self._observer = device, observer
        self._raw = libf.wgpuDeviceCreateCommandEncoder(device._internal, ffi.NULL)

    def record(self, parts: Sequence[list[Launch] | Transfer]) -> int:
        """Record launches that share a pass, and copies; return the number of launches."""
        launches = 0
        for part in parts:
            if isinstance(part, list):
                self.launch(part)
                launches += len(part)
            else:
                self.copy(part)
        return launches

    def copy(self, copy: Transfer) -> None:
        """Copy bytes between buffers that need not come from the pool."""
        source, start, target, to, nbytes = copy
        lib.wgpuCommandEncoderCopyBufferToBuffer(self._raw, source._internal, start, target._internal, to, nbytes)

    def launch(self, launches: Sequence[Launch]) -> None:
        """Dispatch all of ``launches`` in one pass; each sees what those before it wrote."""
        if not launches:
            return
        if self._observer is not None:
            self._observer.encode(self._raw, launches)
            return
        compute = lib.wgpuCommandEncoderBeginComputePass(self._raw, ffi.NULL)
        encode(compute, launches)
        lib.wgpuComputePassEncoderEnd(compute)
        lib.wgpuComputePassEncoderRelease(compute)

    def write(self, write: Callable[[Any], None]) -> None:
        """Let ``write`` record through the raw encoder."""
        write(self._raw)

    def finish(self) -> Any:
        """Return the raw command buffer; the caller submits and releases it."""
        try:
            return libf.wgpuCommandEncoderFinish(self._raw, ffi.NULL)
        finally:
            lib.wgpuCommandEncoderRelease(self._raw)


def transfer(source: Segment, target: Segment) -> Transfer:
    """Return the copy of as many bytes as both hold, in whole words: memory ends with one, also behind an odd half."""
    nbytes = -(-min(source.nbytes, target.nbytes) // 4) * 4
    return (source.buffer.block.raw, source.offset, target.buffer.block.raw, target.offset, nbytes)


def encode(compute: Any, launches: Sequence[Launch]) -> None:
    """Write launches into an open pass."""
    set_pipeline = lib.wgpuComputePassEncoderSetPipeline
    set_group = lib.wgpuComputePassEncoderSetBindGroup
    dispatch = lib.wgpuComputePassEncoderDispatchWorkgroups
    last: object = None
    offset = ffi.new("uint32_t[1]")  # not shared: another thread may encode for another device
    for pipeline, group, at, (x, y, z) in launches:
        if pipeline is not last:
            set_pipeline(compute, pipeline)
            last = pipeline
        if at < 0:
            set_group(compute, 0, group, 0, ffi.NULL)
        else:
            offset[0] = at
            set_group(compute, 0, group, 1, offset)
        dispatch(compute, x, y, z)
