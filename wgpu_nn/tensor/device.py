"""Device: names a backend, chosen at run time; one device per adapter and process, shared by all who name it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from wgpu_nn import switches
from wgpu_nn.autodiff import Autodiff
from wgpu_nn.backends.base import Backend
from wgpu_nn.backends.numpy import Numpy
from wgpu_nn.dtype import F16, F32, F64, DType, Float, Kind
from wgpu_nn.errors import AdapterError, DeviceError

if TYPE_CHECKING:
    from wgpu_nn.gpu import Gpu, PoolStats


class Rng:
    """The state of a device's counter-based generator: a seed, and the number of the next draw.

    Draw n depends on (seed, n) alone, so a sequence of draws is reproducible, and resumes from two numbers.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed, self.stream = seed, 0
        self._lock = threading.Lock()

    def next(self) -> tuple[int, int]:
        """Return the key of one draw, and move on."""
        with self._lock:
            self.stream += 1
            return self.seed, self.stream - 1


class Device:
    """Where tensors live and what runs their ops.

    ``Device()`` is the best GPU of the machine, or the software adapter where there is none. ``Device("wgpu:1")`` and
    ``Device("wgpu:nvidia")`` name an adapter by index or by part of its name, ``Device("numpy")`` is the CPU through
    NumPy, and ``Device("numpy:f64")`` the same in double precision. ``device.autodiff()`` records gradients.

    ``limits`` opens an adapter with lower limits than it has, by WebGPU's names, as if it were a lesser one:
    ``Device(limits={"max-storage-buffer-binding-size": 1 << 20})``. It is another device than the one without.

    ``float_dtype=float16`` lets Floats that are made here, parameters of modules included, be halves. It is no other
    place: tensors of both mix. Halves take two bytes an element; all is computed in f32, and rounded where it is stored.
    On a GPU without WGSL's f16 single ones are stored by atomics: slower, and of the same bits.

    ``debug`` opens a GPU that watches its own kernels, slowly, and raises SanitizerError: ``nan`` at the first kernel that
    makes NaN of inputs without any, ``inf`` at infinities as well, ``bounds`` at an access out of bounds, ``race`` where
    results depend on the order of workgroups, ``unwritten`` where an eager op, or the host, reads memory that nothing has
    written. None leaves that to switches.debug. Eager ops raise where they are called, captured steps when they run.
    """

    __slots__ = ("backend", "float_dtype", "rng")

    def __init__(
        self,
        name: str = "wgpu",
        float_dtype: DType | None = None,
        limits: Mapping[str, int] | None = None,
        *,
        debug: str | None = None,
    ) -> None:
        kind, _, which = name.partition(":")
        watch = switches.debug.value if debug is None else switches.debug.known(debug, "debug")
        if kind in ("wgpu", "gpu"):
            self.backend, self.rng = _wgpu(which or None, limits or {}, watch)
        elif limits:
            raise DeviceError(f"device: expected limits of a wgpu device, got {name!r} with {', '.join(limits)}")
        elif debug:
            raise DeviceError(f"device: expected a GPU for debug={debug!r}, got {name!r}; the CPU is the reference")
        elif kind in ("numpy", "cpu"):
            self.backend, self.rng = _numpy(which)
        else:
            raise DeviceError(f"device: expected wgpu, wgpu:<index or name>, numpy or numpy:f64, got {name!r}")
        self.float_dtype = _float_of(self.backend, float_dtype)

    @classmethod
    def of(cls, backend: Backend, rng: Rng | None = None, float_dtype: DType | None = None) -> Device:
        """Return the device of a backend made by hand."""
        device = cls.__new__(cls)
        device.backend, device.rng = backend, Rng() if rng is None else rng
        device.float_dtype = _float_of(backend, float_dtype)
        return device

    def autodiff(self) -> Device:
        """Return the device that records gradients of what runs here; tensors move between the two without a copy."""
        return Device.of(_autodiff(self.backend), self.rng, self.float_dtype)

    def inner(self) -> Device:
        """Return the device below one that records gradients."""
        if not isinstance(self.backend, Autodiff):
            raise DeviceError(f"inner: expected an autodiff device, got {self}; make one with .autodiff()")
        return Device.of(self.backend.inner, self.rng, self.float_dtype)

    @property
    def is_autodiff(self) -> bool:
        """Whether ops are recorded for gradients."""
        return isinstance(self.backend, Autodiff)

    @property
    def root(self) -> Backend:
        """The backend below all autodiff ones."""
        found = self.backend
        while isinstance(found, Autodiff):
            found = found.inner
        return found

    @property
    def gpu(self) -> Gpu:
        """The GPU behind the device, with its counts and its memory; an error on others."""
        from wgpu_nn.backends.wgpu import Wgpu

        root = self.root
        if not isinstance(root, Wgpu):
            raise DeviceError(f"gpu: expected a wgpu device, got {self}")
        return root.gpu

    @property
    def largest(self) -> int | None:
        """The most bytes that one tensor may have here, if anything but memory limits that."""
        from wgpu_nn.backends.wgpu import Wgpu

        root = self.root
        return root.gpu.pool.largest if isinstance(root, Wgpu) else None

    def dtype(self, kind: Kind) -> DType:
        """Return the element type that this device gives to ``kind``."""
        return self.float_dtype if kind is Float else self.backend.dtypes[kind]

    def seed(self, seed: int) -> None:
        """Start the device's random sequence anew."""
        self.rng.seed, self.rng.stream = int(seed), 0

    def untraced(self) -> AbstractContextManager[None]:
        """Return a context in which ops run although a captured function is being traced."""
        from wgpu_nn.backends.wgpu import Wgpu

        root = self.root
        return root.recording(None) if isinstance(root, Wgpu) else nullcontext()

    def memory(self) -> PoolStats:
        """Return what tensors take of the GPU's memory: live, pooled and peak bytes, and counts; see PoolStats."""
        return self.gpu.memory()

    def limit_memory(self, nbytes: int | None) -> None:
        """Let tensors take at most ``nbytes`` in all, those that wait for reuse included; None leaves it to the driver.

        What would go beyond raises OutOfMemoryError, after the pool was emptied. Software adapters start with three
        quarters of the machine's memory, as their memory is the host's.
        """
        if nbytes is not None and nbytes < 0:
            raise DeviceError(f"limit_memory: expected 0 bytes or more, or None, got {nbytes}")
        self.gpu.memory_limit = nbytes

    def reset_peak_memory(self) -> None:
        """Let the peak of ``memory`` be what is live now."""
        self.gpu.pool.reset_peak()

    def reset(self) -> None:
        """Open the GPU anew: after DeviceLostError, or to give back all of its memory.

        The device stays the same to all who hold it, and captured functions capture again. Tensors on it are gone: each
        use of one raises DeviceLostError. Modules and optimizers take their state again from a file or from the host, by
        ``load_state``, ``load_module`` or ``Trainer.fit(resume=True)``.
        """
        self.gpu.reset()

    def sync(self) -> None:
        """Wait until all work given so far is done."""
        self.backend.sync()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.backend is other.backend

    def __hash__(self) -> int:
        return hash(id(self.backend))

    def __repr__(self) -> str:
        return f"Device({self.backend.name}{', f16' if self.float_dtype == F16 else ''})"


def _float_of(backend: Backend, wanted: DType | None) -> DType:
    """Return the element type of Floats that are made on a device: the backend's own, or f16."""
    own = backend.dtypes[Float]
    if wanted not in (None, own, F16):
        raise DeviceError(f"device: expected float_dtype {own} or f16, got {wanted}")
    return wanted or own


@functools.cache
def _autodiff(inner: Backend) -> Backend:
    return Autodiff(inner)


@functools.cache
def _numpy(which: str) -> tuple[Backend, Rng]:
    known = {"": F32, "f32": F32, "f64": F64}
    if which not in known:
        raise DeviceError(f"device: expected numpy, numpy:f32 or numpy:f64, got numpy:{which}")
    return (Numpy(known[which]), Rng()) if which != "f32" else _numpy("")


def _wgpu(which: str | None, limits: Mapping[str, int], debug: str) -> tuple[Backend, Rng]:
    from wgpu_nn.gpu import choose  # wgpu is loaded when the first GPU device is named, not before

    return _open(choose(which)[0].index, frozenset(limits.items()), switches.limits.value, debug)


@functools.cache
def _open(index: int, limits: frozenset[tuple[str, int]], mode: str, debug: str) -> tuple[Backend, Rng]:
    from wgpu_nn.backends.wgpu import Wgpu
    from wgpu_nn.gpu import Gpu, adapters

    return Wgpu(Gpu(adapters()[index], dict(limits), debug)), Rng()


_default: Device | None = None


def default_device() -> Device:
    """Return the device used where none is named: the best GPU, or NumPy where no adapter answers."""
    global _default
    if _default is None:
        try:
            _default = Device()
        except AdapterError as error:
            if "none answers" not in str(error):
                raise
            _default = Device("numpy")
    return _default


def set_default_device(device: Device | str) -> None:
    """Set the device used where none is named."""
    global _default
    _default = Device(device) if isinstance(device, str) else device
