"""The product backend: runs ops by their recipes, which record launches on the stream; views cost nothing."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from wgpu_nn.backends.base import HostCallback, Pending, Present, Recorder, Traced, caller
from wgpu_nn.backends.choices import known_choices
from wgpu_nn.backends.recipe import Recipes
from wgpu_nn.backends.tuner import Tuner
from wgpu_nn.dtype import Bool, DType, Kind, Scalar
from wgpu_nn.errors import CaptureError, KindError
from wgpu_nn.gpu import Gpu, Landing, bindable
from wgpu_nn.kernels import Grid, Target, Template, View, Words, contiguous, whole
from wgpu_nn.kernels.plan import Candidate, Task
from wgpu_nn.kernels.storage import stored
from wgpu_nn.ops import DEFAULT_DTYPES, Spec
from wgpu_nn.shape import Shape, size


class Wgpu:
    """Runs ops on a GPU. It is itself a site for planners of what is no op, such as the copy of a view that is read."""

    def __init__(self, gpu: Gpu, target: Target | None = None, tuned: bool = False) -> None:
        self.gpu, self.tuned = gpu, tuned
        self.target = target_of(gpu) if target is None else target  # another one runs another adapter kind's variants
        self.recipes = Recipes(gpu, self.target, tuned)
        self._recorder: ContextVar[Recorder | None] = ContextVar("recorder", default=None)

    @property
    def name(self) -> str:
        return "wgpu"

    @property
    def dtypes(self) -> Mapping[Kind, DType]:
        return DEFAULT_DTYPES

    def spec(self, handle: View) -> Spec:
        return handle.spec

    def run(self, op: str, *operands: View | Scalar, **attrs: Any) -> View:
        recorder = self._recorder.get()
        if recorder is not None:
            return recorder.run(op, *operands, **attrs)  # pyright: ignore[reportReturnType]
        recipe = self.recipes.find(op, operands, attrs)
        if self.gpu.sanitizer is None:
            return recipe.run(self.gpu, operands)
        given = ", ".join(str(x.spec if isinstance(x, View) else x) for x in operands)
        with self.gpu.sanitizer.serving(f"{op} of {given} -> {recipe.layout.spec}"):
            return recipe.run(self.gpu, operands)

    # --- capture ---------------------------------------------------------------------------------------------------
    @property
    def recorder(self) -> Recorder | None:
        return self._recorder.get()

    @contextmanager
    def recording(self, recorder: Recorder | None) -> Iterator[None]:
        """Let ``recorder`` stand in for this backend, in this thread; None lets ops run although a trace is open."""
        token = self._recorder.set(recorder)
        try:
            yield
        finally:
            self._recorder.reset(token)

    def host(self, callback: HostCallback) -> tuple[Any, ...]:
        recorder = self._recorder.get()
        return tuple(callback()) if recorder is None else recorder.host(callback)

    # --- the site of planners --------------------------------------------------------------------------------------
    def empty(self, shape: Shape, dtype: DType) -> View:
        return whole(shape, dtype, self.gpu.pool.lease(Spec(shape, dtype).nbytes))

    def launch(self, template: Template, key: Hashable, words: Words, views: Sequence[View], grid: Grid) -> None:
        kernel = stored(template(key, None), views, self.target.halves)
        params = np.array([w & 0xFFFFFFFF for w in words], np.uint32).tobytes()
        self.gpu.stream.launch(kernel, [v.buffer for v in views], grid, params)

    def choose(self, task: Task, candidates: Sequence[Candidate]) -> int:
        return 0

    @functools.cached_property
    def tuner(self) -> Tuner:
        """What measures variants for the steps captured on this device."""
        return Tuner(self.gpu, self.target, functools.partial(known_choices, self.gpu.adapter))

    # --- data ------------------------------------------------------------------------------------------------------
    def upload(self, array: np.ndarray, dtype: DType) -> View:
        if not dtype.wgsl:
            raise KindError(f"upload: a GPU holds no {dtype}, got an array of it; use f32 or i32")
        data = np.ascontiguousarray(array, np.uint32 if dtype.kind is Bool else dtype.numpy)
        out = self.empty(array.shape, dtype)
        if data.nbytes % 4:
            data = np.append(data, np.zeros(1, data.dtype))  # buffers are copied in whole words
        self.gpu.stream.upload(out.buffer, data)
        return out

    def download(self, handle: View) -> np.ndarray:
        x = self._readable(handle)
        if x.size == 0:
            return np.empty(x.shape, x.dtype.numpy)
        data = self.gpu.stream.read(x.buffer, x.start, -(-x.nbytes // 4) * 4)
        if self.gpu.sanitizer is not None:
            self.gpu.sanitizer.arrived(data)
        return _array(data, x)

    def download_later(self, handles: Sequence[View]) -> list[Pending]:
        found = [self._readable(handle) for handle in handles]
        parts = [(x.buffer, x.start, -(-x.nbytes // 4) * 4) for x in found if x.size]
        landings = iter(self.gpu.stream.read_later(parts))
        return [_Coming(next(landings), x.spec) if x.size else Present(np.empty(x.shape, x.dtype.numpy)) for x in found]

    def _readable(self, handle: View) -> View:
        if isinstance(handle, Traced):
            raise CaptureError(
                f"read: takes a value out of a captured function, at {caller()}; return it and read it outside, "
                "or decide with where() instead of if"
            )
        return contiguous(self, handle)

    def sync(self) -> None:
        self.gpu.stream.sync()


class _Coming:
    """Bytes on their way, and the array that they will be."""

    __slots__ = ("_landing", "_spec")

    def __init__(self, landing: Landing, spec: Spec) -> None:
        self._landing, self._spec = landing, spec

    def ready(self) -> bool:
        return self._landing.ready()

    def result(self) -> np.ndarray:
        return _array(self._landing.result(), self._spec)


def _array(data: bytes | bytearray, spec: Spec | View) -> np.ndarray:
    element = np.uint32 if spec.dtype.kind is Bool else spec.dtype.numpy
    found = np.frombuffer(data, element, size(spec.shape))
    return found.reshape(spec.shape).astype(spec.dtype.numpy, copy=False)


@functools.cache
def target_of(gpu: Gpu) -> Target:
    """Return what the choice of kernel variants depends on."""
    name = "max-storage-buffers-per-shader-stage"
    checks = 0 if gpu.sanitizer is None else 1  # fused kernels leave room for the buffer of a check
    return target_from(gpu.software, {**gpu.limits, name: gpu.limits[name] - checks}, "shader-f16" in gpu.features)


def target_from(software: bool, limits: Mapping[str, int], halves: bool = True) -> Target:
    """Return the target of a device with these limits, by WebGPU's names, and with or without f16 in WGSL."""
    return Target(
        software=software,
        invocations=min(limits["max-compute-invocations-per-workgroup"], limits["max-compute-workgroup-size-x"]),
        storage=limits["max-compute-workgroup-storage-size"],
        bindings=min(limits["max-storage-buffers-per-shader-stage"], 16),
        binding=bindable(limits),
        halves=halves,
    )
