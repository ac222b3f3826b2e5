"""Reads that stall nobody: bytes land in mapped buffers, and are taken from there as they come; orders nothing by itself."""

from __future__ import annotations

import atexit
import itertools
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import wgpu
from wgpu.backends.wgpu_native._api import from_c_string_view

from wgpu_nn.gpu import process
from wgpu_nn.gpu.failure import device_errors
from wgpu_nn.gpu.native import ffi, lib, libf

SMALLEST = 256
CALLBACK_SECONDS = 30.0
AWAKE = 0.0005  # seconds to look again and again for: whom the driver lets sleep, it may wake half a millisecond late

_serial = itertools.count(1)
_expected: dict[int, Landing] = {}  # those whose callback has not come, by the number that it gets


class Landing:
    """Bytes on their way from the GPU."""

    __slots__ = ("_data", "_failure", "_nbytes", "_submission", "home", "raw")

    def __init__(self, home: Readback, raw: wgpu.GPUBuffer, nbytes: int) -> None:
        self.home, self.raw, self._nbytes = home, raw, nbytes
        self._submission: Any = None  # None until the copy is with the queue
        self._failure: str | None = None  # why the bytes did not come; empty if they did
        self._data: bytearray | None = None

    def begin(self, submission: int) -> None:
        """Ask for the bytes; the copy of them has been submitted, and this is its number in the queue.

        Whoever submits calls this, on whatever thread.
        """
        number = next(_serial)
        _expected[number] = self
        info = ffi.new("WGPUBufferMapCallbackInfo *")
        info.mode, info.callback = lib.WGPUCallbackMode_AllowProcessEvents, _come
        info.userdata1 = ffi.cast("void *", number)
        libf.wgpuBufferMapAsync(self.raw._internal, lib.WGPUMapMode_Read, 0, self._nbytes, info[0])
        self._submission = ffi.new("WGPUSubmissionIndex *", submission)

    def come(self, failure: str) -> None:
        """Take note that the bytes are there, or why not."""
        self._failure = failure

    def ready(self) -> bool:
        """Say whether ``result`` need not wait; a copy that is only recorded is submitted, while the caller goes on."""
        if self._failure is None and not self.home.closed:
            if self._submission is None:
                self.home.push(False)
            self.home.poll()
        return self._failure is not None or self.home.closed

    def wait(self) -> None:
        """Wait until the bytes have come, or failed to; not for work that was given to the GPU after them."""
        if self._failure is None:
            process.check()
            if self._submission is None:
                self.home.push(True)
            self.home.wait(self._submission, lambda: self._failure is not None)
        # Another thread that polls may have been given the callback, and be about to run it.
        deadline = time.monotonic() + CALLBACK_SECONDS
        while self._failure is None and not self.home.closed and time.monotonic() < deadline:
            time.sleep(0)

    def result(self, sure: bool = True) -> bytearray:
        """Return the bytes; waits as ``wait`` does. ``sure`` asks the device first whether it is there."""
        if self._data is None:
            with device_errors("read"):
                self.wait()
                self._data = self.home.taken(self.raw, self._nbytes, self._failure, sure)
            self.home.give(self.raw)
        return self._data


def give_up(landings: Iterable[Landing], error: BaseException) -> None:
    """Say of bytes whose copy was not submitted why they will not come."""
    for landing in landings:
        landing.come(str(error) or type(error).__name__)


@ffi.callback("void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)")
def _come(status: int, message: Any, number: Any, unused: Any) -> None:
    good = status == lib.WGPUMapAsyncStatus_Success
    failure = "" if good else from_c_string_view(message) or f"mapping failed with status {status}"
    landing = _expected.pop(int(ffi.cast("uintptr_t", number)), None)
    if landing is not None:  # it is the parent's, in a forked child
        landing.come(failure)


@atexit.register
def _finish() -> None:
    """Let no callback come when the interpreter is half gone."""
    for landing in list(_expected.values()):
        landing.wait()


process.in_children(_expected.clear)


class Readback:
    """Buffers for reads that are under way, kept by size and used again. ``closed`` tells that the device is gone.

    ``alive`` gives a context that nobody else uses the device in, and raises on entry if it is lost. ``push`` submits the
    copies that are recorded: at once, or while the caller goes on.
    """

    def __init__(
        self,
        device: wgpu.GPUDevice,
        software: bool,
        alive: Callable[[bool], AbstractContextManager[None]],
        push: Callable[[bool], None],
    ) -> None:
        self._device, self.alive, self.push = device, alive, push
        self._awake = 0.0 if software else AWAKE  # a software adapter needs the CPU itself
        self.closed = False
        self._free: dict[int, list[wgpu.GPUBuffer]] = {}

    @property
    def queue(self) -> Any:
        """The raw queue."""
        return self._device.queue._internal

    def take(self, nbytes: int) -> Landing:
        """Return a place for ``nbytes``; whoever submits the copy to it then calls ``begin``."""
        size = max(SMALLEST, 1 << (nbytes - 1).bit_length())
        free = self._free.setdefault(size, [])
        usage = wgpu.BufferUsage.MAP_READ | wgpu.BufferUsage.COPY_DST
        raw = free.pop() if free else self._device.create_buffer(size=size, usage=usage)
        return Landing(self, raw, nbytes)

    def taken(self, raw: wgpu.GPUBuffer, nbytes: int, failure: str | None, sure: bool) -> bytearray:
        """Return the bytes of a mapped buffer, and unmap it."""
        with self.alive(sure):
            # NOTE: whoever asks for the mapped bytes of a destroyed device aborts the process.
            if failure != "" or self.closed:
                raise RuntimeError("device is lost" if self.closed else failure or "nothing came")
            address = libf.wgpuBufferGetMappedRange(raw._internal, 0, nbytes)
            data = bytearray(ffi.buffer(address, nbytes))
            libf.wgpuBufferUnmap(raw._internal)
            return data

    def give(self, raw: wgpu.GPUBuffer) -> None:
        """Take back a buffer that is not mapped any more."""
        self._free.setdefault(raw.size, []).append(raw)

    def close(self) -> None:
        """Wait for what is under way: the device is about to go, and callbacks must not come after it."""
        for landing in [x for x in _expected.values() if x.home is self]:
            landing.wait()
        self.closed = True

    def poll(self) -> None:
        """Let what has come be noticed."""
        if not self.closed:
            libf.wgpuDevicePoll(self._device._internal, False, ffi.NULL)

    def wait(self, submission: Any, done: Callable[[], bool]) -> None:
        """Wait until the GPU has done a submission and all before it; ``done`` says so as soon as that is noticed."""
        until = time.perf_counter() + self._awake
        while not done() and time.perf_counter() < until:
            self.poll()
        if not done() and not self.closed:
            libf.wgpuDevicePoll(self._device._internal, True, submission)

    def trim(self) -> None:
        """Destroy the buffers that wait for reuse."""
        for free in self._free.values():
            for raw in free:
                raw.destroy()
        self._free.clear()
