"""Runs anybody's WGSL: any entry point, overrides, groups and bindings, one dispatch at a time. Reads no text itself."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import wgpu
from wgpu.backends.wgpu_native._api import new_struct_p

from wgpu_nn.errors import DeviceError, DeviceLimitError, ShaderError
from wgpu_nn.gpu.adapter import Adapter
from wgpu_nn.gpu.commands import Grid
from wgpu_nn.gpu.device import Gpu
from wgpu_nn.gpu.failure import device_errors
from wgpu_nn.gpu.kernel import Kernel, compile_module
from wgpu_nn.gpu.limits import PORTABLE
from wgpu_nn.gpu.native import ffi, lib, libf
from wgpu_nn.gpu.pool import Buffer


@dataclass(frozen=True, slots=True)
class ComputeStage:
    """What defines a pipeline. ``bindings`` are (group, binding, type), with types read-only-storage, storage or uniform.

    Line numbers of errors are those of ``source``. A shader that is not ``trusted`` runs with bounds checks and loop limits.
    """

    source: str
    code: str
    entry: str
    constants: tuple[tuple[str, float], ...]
    bindings: tuple[tuple[int, int, str], ...]
    trusted: bool = False


class Place(NamedTuple):
    """Memory to bind; a uniform has a buffer of its own."""

    raw: wgpu.GPUBuffer
    offset: int
    nbytes: int


class ComputeStages:
    """The compiled shaders of a device."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self._compiled: dict[ComputeStage, tuple[wgpu.GPUComputePipeline, list[wgpu.GPUBindGroupLayout]]] = {}

    def compile(self, shader: ComputeStage) -> None:
        """Compile a shader, or raise the ShaderError that says where it fails."""
        if shader in self._compiled:
            return
        raw = self.gpu.raw
        kernel = Kernel(shader.entry, shader.code, "", False, shader.source, shader.trusted)
        with device_errors(f"shader {shader.source}"):
            module = compile_module(raw, kernel, shader.trusted)
        try:
            layouts = [
                raw.create_bind_group_layout(
                    entries=[
                        {"binding": b, "visibility": wgpu.ShaderStage.COMPUTE, "buffer": {"type": kind}}
                        for g, b, kind in shader.bindings
                        if g == group
                    ]  # pyright: ignore[reportArgumentType]
                )
                for group in range(1 + max((g for g, _, _ in shader.bindings), default=-1))
            ]
            layout = raw.create_pipeline_layout(bind_group_layouts=layouts)
            stage: dict[str, Any] = {"module": module, "entry_point": shader.entry}
            stage["constants"] = dict(shader.constants)
            pipeline = raw.create_compute_pipeline(label=shader.entry, layout=layout, compute=stage)  # pyright: ignore[reportArgumentType]
        except wgpu.GPUError as error:
            if "device is lost" in str(error):
                raise
            raise ShaderError(f"shader {shader.source}: {shader.entry} makes no pipeline: {error}") from None
        self.gpu.counts.pipelines += 1
        self._compiled[shader] = (pipeline, layouts)

    def uniform(self, data: np.ndarray) -> Place:
        """Return a uniform buffer with these bytes."""
        size = -(-data.nbytes // 16) * 16
        with device_errors("uniform"):
            raw = self.gpu.raw.create_buffer(size=size, usage=wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.COPY_DST)
            self.gpu.raw.queue.write_buffer(raw, 0, np.ascontiguousarray(data))
        return Place(raw, 0, size)

    def storage(self, words: np.ndarray, before: int, nbytes: int) -> tuple[Buffer, Place]:
        """Return a buffer that holds ``words``, and the part of it to bind: ``nbytes`` from byte ``before`` on."""
        lease = self.gpu.pool.lease(words.nbytes)
        self.gpu.stream.upload(lease, words)
        return lease, Place(lease.block.raw, before, nbytes)

    def run(
        self, shader: ComputeStage, places: Mapping[tuple[int, int], Place], grid: Grid, times: int = 0
    ) -> list[float]:
        """Dispatch once, or ``times`` times with timestamps; return the seconds of each of these."""
        most = self.gpu.limits["max-compute-workgroups-per-dimension"]
        if max(grid) > most:
            raise DeviceLimitError(
                f"shader {shader.source}: expected at most {most} workgroups per dimension "
                f"(max-compute-workgroups-per-dimension of this adapter), got {grid}"
            )
        if times and "timestamp-query" not in self.gpu.features:
            raise DeviceError(f"timing: {self.gpu.adapter} has no timestamps (feature timestamp-query)")
        self.compile(shader)
        pipeline, layouts = self._compiled[shader]
        with device_errors(f"shader {shader.source}"):
            groups = [
                self.gpu.raw.create_bind_group(
                    layout=layout,
                    entries=[
                        {"binding": b, "resource": {"buffer": p.raw, "offset": p.offset, "size": p.nbytes}}
                        for (g, b), p in places.items()
                        if g == group
                    ],  # pyright: ignore[reportArgumentType]
                )
                for group, layout in enumerate(layouts)
            ]
            if not times:
                self.gpu.stream.alone(lambda encoder: _encode(encoder, pipeline, groups, grid, ffi.NULL), 1)
                return []
            return self._timed(pipeline, groups, grid, times)

    def _timed(
        self, pipeline: wgpu.GPUComputePipeline, groups: Sequence[wgpu.GPUBindGroup], grid: Grid, times: int
    ) -> list[float]:
        raw, count = self.gpu.raw, 2 * times
        queries = raw.create_query_set(type="timestamp", count=count)
        ticks = raw.create_buffer(size=8 * count, usage=wgpu.BufferUsage.QUERY_RESOLVE | wgpu.BufferUsage.COPY_SRC)

        def write(encoder: Any) -> None:
            for n in range(0, count, 2):
                marks = new_struct_p(
                    "WGPUPassTimestampWrites *",
                    querySet=queries._internal,
                    beginningOfPassWriteIndex=n,
                    endOfPassWriteIndex=n + 1,
                )
                described = new_struct_p("WGPUComputePassDescriptor *", timestampWrites=marks)
                _encode(encoder, pipeline, groups, grid, described)
            libf.wgpuCommandEncoderResolveQuerySet(encoder, queries._internal, 0, count, ticks._internal, 0)

        self.gpu.stream.alone(write, times)
        found = np.frombuffer(raw.queue.read_buffer(ticks), np.uint64).astype(np.float64)
        period = libf.wgpuQueueGetTimestampPeriod(raw.queue._internal)
        return [float(seconds) for seconds in (found[1::2] - found[::2]) * period * 1e-9]


def _encode(
    encoder: Any, pipeline: wgpu.GPUComputePipeline, groups: Sequence[wgpu.GPUBindGroup], grid: Grid, described: Any
) -> None:
    compute = libf.wgpuCommandEncoderBeginComputePass(encoder, described)
    lib.wgpuComputePassEncoderSetPipeline(compute, pipeline._internal)
    for n, group in enumerate(groups):
        lib.wgpuComputePassEncoderSetBindGroup(compute, n, group._internal, 0, ffi.NULL)
    lib.wgpuComputePassEncoderDispatchWorkgroups(compute, *grid)
    lib.wgpuComputePassEncoderEnd(compute)
    lib.wgpuComputePassEncoderRelease(compute)


@functools.cache
def _plain(adapter: Adapter, features: frozenset[str], standard: bool) -> wgpu.GPUDevice:
    with device_errors(f"open {adapter}"):
        limits = {n: (PORTABLE if standard else {}).get(n, value) for n, value in adapter.raw.limits.items()}
        return adapter.raw.request_device_sync(required_features=sorted(features), required_limits=limits)  # pyright: ignore[reportArgumentType]


def refusal(
    adapter: Adapter,
    source: str,
    code: str,
    entries: Sequence[str],
    features: frozenset[str] = frozenset(),
    standard: bool = True,
) -> str:
    """Return why a text and its compute entry points do not compile on a device with these features, empty if they do.

    With ``standard`` the device has the limits that every WebGPU device has, and no more, else the adapter's own.
    """
    device = _plain(adapter, features, standard)
    try:
        module = compile_module(device, Kernel(source, code, "", False, source, False), False)
        for entry in entries:
            device.create_compute_pipeline(layout="auto", compute={"module": module, "entry_point": entry})
    except ShaderError as error:
        return str(error)
    except wgpu.GPUError as error:
        return f"shader {source}: makes no pipeline: {error}"
    return ""
