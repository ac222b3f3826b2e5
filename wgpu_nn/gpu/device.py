"""An open device: limits, features, compiled pipelines, and the translation of its errors; work goes through Stream."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import wgpu

from wgpu_nn import switches
from wgpu_nn.errors import DeviceError, OutOfMemoryError
from wgpu_nn.gpu import process
from wgpu_nn.gpu.adapter import Adapter, again
from wgpu_nn.gpu.failure import device_errors
from wgpu_nn.gpu.kernel import PARAMS_BYTES, Kernel, compile_module
from wgpu_nn.gpu.limits import bindable, features_of, host_memory, limits_of
from wgpu_nn.gpu.pool import USAGE, Pool, PoolStats
from wgpu_nn.gpu.sanitizer import Sanitizer
from wgpu_nn.gpu.stream import Stream

# What kernels may ask for; each has a fallback in standard WGSL, so a device without them works too.
FEATURES = ("shader-f16", "subgroup", "timestamp-query", "timestamp-query-inside-passes")
MOST_PIPELINES = 1024  # kept for who asks again; those of llvmpipe take some 500 KB each


@dataclass(slots=True)
class Counts:
    """What a device has done since it was opened; tests assert these where a time would depend on the machine."""

    launches: int = 0
    submits: int = 0
    pipelines: int = 0
    bind_groups: int = 0
    uploads: int = 0
    reads: int = 0
    plans: int = 0  # of eager mode's ops that launch something, and were not found planned already

    def since(self, before: Counts) -> Counts:
        """Return the difference to an earlier copy."""
        return Counts(*(getattr(self, f) - getattr(before, f) for f in self.__slots__))

    def copy(self) -> Counts:
        """Return these counts as they are now."""
        return Counts(*(getattr(self, f) for f in self.__slots__))


class Gpu:
    """One device of one adapter with its pool, its pipelines and its command stream.

    ``debug`` is a value of switches.debug; None leaves it to that.
    """

    def __init__(self, adapter: Adapter, limits: Mapping[str, int] | None = None, debug: str | None = None) -> None:
        """Open a device; ``limits``, by WebGPU's names, are lower than the adapter's where they are given."""
        process.check()
        self.adapter = adapter
        self.features = features_of(FEATURES, adapter.features)
        self._asked = limits_of(adapter.limits, limits)
        self.counts = Counts()
        self.memory_limit = host_memory() if self.software else None
        self._debug = switches.debug.value if debug is None else debug
        self.generation = 0  # grows when what was prepared for launches is to be let go, and prepared anew
        self._open()
        _opened.add(self)

    def _open(self) -> None:
        self.generation += 1
        with device_errors(f"open {self.adapter}"):
            self.raw = self.adapter.raw.request_device_sync(
                required_features=sorted(self.features),  # pyright: ignore[reportArgumentType]
                required_limits=self._asked,
            )
        self.limits = dict(self.raw.limits)
        self.pool = Pool(self._create_buffer, self.limits["max-buffer-size"], bindable(self.limits))
        self._layouts: dict[tuple[str, bool], tuple[wgpu.GPUBindGroupLayout, wgpu.GPUPipelineLayout]] = {}
        self._pipelines: dict[tuple[Kernel, bool], wgpu.GPUComputePipeline] = {}
        self.stream = Stream(self)
        self.sanitizer = Sanitizer(self, self._debug) if self._debug != "off" else None
        if self.sanitizer is not None:
            self.stream.observer, self.stream.batch = self.sanitizer, 1  # so that errors come where the op is called
            self.pool.leased = self.sanitizer.leased if self._debug == "unwritten" else None

    def reset(self) -> None:
        """Open the device anew, lost or not. What lived on it is gone: each use of it raises DeviceLostError."""
        process.check()
        self.destroy()
        try:
            self._open()
        except DeviceError:  # a driver that was restarted may want to be found again
            self.adapter = again(self.adapter)
            self._open()

    @property
    def software(self) -> bool:
        """Whether the adapter is a program on the CPU: kernels then avoid workgroup memory and barriers."""
        return self.adapter.kind == "software"

    def _create_buffer(self, size: int) -> wgpu.GPUBuffer:
        try:
            return self._allocate(size)
        except OutOfMemoryError:
            # What is garbage, and what waits for reuse in other size classes, may be what is missing.
            gc.collect()
            self.stream.trim()
            return self._allocate(size)

    def _allocate(self, size: int) -> wgpu.GPUBuffer:
        used, most = self.pool.total_bytes, self.memory_limit
        if most is not None and used + size > most:
            raise OutOfMemoryError(
                f"allocate {size} bytes: expected at most {most} bytes in all (the device's memory limit), got {used} in "
                "use; free tensors, use a smaller batch, or set another limit by device.limit_memory"
            )
        with device_errors(f"allocate {size} bytes"):
            return self.raw.create_buffer(size=size, usage=USAGE)

    def memory(self) -> PoolStats:
        """Return what the buffers of tensors take."""
        return replace(self.pool.stats(), limit_bytes=self.memory_limit)

    def layout(self, access: str, params: bool) -> tuple[wgpu.GPUBindGroupLayout, wgpu.GPUPipelineLayout]:
        """Return the layouts of kernels with these bindings; few exist, so bind groups are shared widely."""
        found = self._layouts.get((access, params))
        if found is None:
            entries: list[dict[str, object]] = [
                {
                    "binding": i,
                    "visibility": wgpu.ShaderStage.COMPUTE,
                    "buffer": {"type": "read-only-storage" if a == "r" else "storage"},
                }
                for i, a in enumerate(access)
            ]
            if params:
                uniform = {"type": "uniform", "has_dynamic_offset": True, "min_binding_size": PARAMS_BYTES}
                entries.append({"binding": len(access), "visibility": wgpu.ShaderStage.COMPUTE, "buffer": uniform})
            with device_errors(f"lay out {len(access)} storage buffers"):
                group = self.raw.create_bind_group_layout(entries=entries)  # pyright: ignore[reportArgumentType]
                found = (group, self.raw.create_pipeline_layout(bind_group_layouts=[group]))
            self._layouts[access, params] = found
        return found

    def pipeline(self, kernel: Kernel) -> wgpu.GPUComputePipeline:
        """Return the compiled kernel; each text is compiled once, trusted and checked apart."""
        key = (kernel, kernel.trusted and not switches.checked_shaders)
        found = self._pipelines.get(key)
        if found is None:
            self._make_room()
            found = self._pipelines[key] = self._compile(*key)
            self.counts.pipelines += 1
        return found

    def _make_room(self) -> None:
        """Forget the oldest pipelines where there are many: a process that captures ever new sizes must not grow for it."""
        profiled = self.stream.observer not in (None, self.sanitizer)  # a profile knows kernels by pipeline
        if len(self._pipelines) >= MOST_PIPELINES and not profiled:
            with self.stream.lock:
                self.stream.flush()  # what is recorded names them by raw handles; steps hold their own
                for key in list(self._pipelines)[: MOST_PIPELINES // 4]:
                    del self._pipelines[key]
                self.generation += 1

    def compile(self, kernels: Iterable[Kernel]) -> None:
        """Compile what is not compiled yet of ``kernels``, side by side, as a new step has many."""
        keys = [(k, k.trusted and not switches.checked_shaders) for k in dict.fromkeys(kernels)]
        missing = [key for key in keys if key not in self._pipelines]
        for kernel, _ in missing:
            self.layout(kernel.access, kernel.params)
        with ThreadPoolExecutor(max_workers=min(len(missing), os.cpu_count() or 1) or 1) as pool:
            self._make_room()
            for key, found in zip(missing, pool.map(lambda key: self._compile(*key), missing), strict=True):
                self._pipelines[key] = found
                self.counts.pipelines += 1

    def _compile(self, kernel: Kernel, trusted: bool) -> wgpu.GPUComputePipeline:
        with device_errors(f"compile {kernel.name}"):
            module = compile_module(self.raw, kernel, trusted)
            layout = self.layout(kernel.access, kernel.params)[1]
            return self.raw.create_compute_pipeline(
                label=kernel.name, layout=layout, compute={"module": module, "entry_point": "main"}
            )

    def compiled(self) -> Iterator[tuple[Kernel, Any]]:
        """Yield every kernel compiled so far with its raw pipeline, by which launches name it."""
        return ((kernel, pipeline._internal) for (kernel, _), pipeline in self._pipelines.items())

    def destroy(self) -> None:
        """Give the device back; every later use of it raises DeviceLostError."""
        self.stream.close()
        self.raw.destroy()


_opened: weakref.WeakSet[Gpu] = weakref.WeakSet()


@process.in_children
def _cut() -> None:
    for gpu in _opened:
        gpu.pool.lock = threading.RLock()  # another thread of the parent may have held it
        gpu.pool.create = process.refuse
        gpu.stream.cut()
