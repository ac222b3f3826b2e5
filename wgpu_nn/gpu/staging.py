"""Memory that the CPU writes and the GPU copies from: mapped buffers, kept and used again; orders nothing by itself."""

from __future__ import annotations

import atexit
import itertools
from collections.abc import Iterable
from typing import Any

import wgpu

from wgpu_nn.gpu import process
from wgpu_nn.gpu.native import ffi, lib, libf

SMALLEST = 1 << 16
LARGEST = 1 << 22  # bytes of one write; what is larger is worth an allocation of its own
MOST_BYTES = 1 << 26  # of all chunks; beyond that a write waits for the GPU


class Chunk:
    """A mapped buffer, filled from its start."""

    __slots__ = ("address", "raw", "size", "used")

    def __init__(self, raw: wgpu.GPUBuffer, size: int) -> None:
        self.raw, self.size, self.used = raw, size, 0
        self.address: Any = None

    def open(self) -> None:
        """Begin to fill it."""
        self.used = 0
        self.address = lib.wgpuBufferGetMappedRange(self.raw._internal, 0, self.size)


_serial = itertools.count(1)
_returning: dict[int, tuple[Staging, Chunk]] = {}  # chunks that the GPU still reads, by the number of their callback


@ffi.callback("void(WGPUMapAsyncStatus, WGPUStringView, void *, void *)")
def _mapped(status: int, message: Any, number: Any, unused: Any) -> None:
    found = _returning.pop(int(ffi.cast("uintptr_t", number)), None)
    if found is not None:  # it is the parent's, in a forked child
        found[0].returned(found[1], status == lib.WGPUMapAsyncStatus_Success)


@atexit.register
def _finish() -> None:
    """Let no callback come when the interpreter is half gone: the process would not live to its end."""
    for staging, _ in list(_returning.values()):
        staging.wait()


process.in_children(_returning.clear)


class Staging:
    """Hands out places in mapped memory.

    The stream calls ``seal`` before the submit that copies from them, and ``recycle`` after it. Whoever writes has made
    sure that the device is not lost: its memory goes with it.
    """

    def __init__(self, device: wgpu.GPUDevice) -> None:
        self._device = device
        self._info = ffi.new("WGPUBufferMapCallbackInfo *")  # one a device: another's lock does not guard it
        self._info.mode, self._info.callback = lib.WGPUCallbackMode_AllowProcessEvents, _mapped
        self._free: dict[int, list[Chunk]] = {}
        self._open: list[Chunk] = []
        self._bytes = 0

    def write(self, data: memoryview) -> tuple[wgpu.GPUBuffer, int]:
        """Put bytes (LARGEST at most) into mapped memory; return the buffer and where in it they lie."""
        nbytes = len(data)
        chunk = next((c for c in self._open if c.size - c.used >= nbytes), None) or self._chunk(nbytes)
        start = chunk.used
        ffi.memmove(chunk.address + start, ffi.from_buffer(data), nbytes)
        chunk.used = start + -(-nbytes // 16) * 16
        return chunk.raw, start

    def _chunk(self, nbytes: int) -> Chunk:
        size = max(SMALLEST, 1 << (nbytes - 1).bit_length())
        if not self._free.get(size) and self._bytes + size > MOST_BYTES:
            self.wait()
        free = self._free.get(size)
        if free:
            chunk = free.pop()
        else:
            usage = wgpu.BufferUsage.MAP_WRITE | wgpu.BufferUsage.COPY_SRC
            chunk = Chunk(self._device.create_buffer(size=size, usage=usage, mapped_at_creation=True), size)
            self._bytes += size
        chunk.open()
        self._open.append(chunk)
        return chunk

    @property
    def waiting(self) -> int:
        """Bytes of chunks that are written and not sealed yet: they can come back only after a submit."""
        return sum(chunk.size for chunk in self._open)

    def seal(self) -> list[Chunk]:
        """Unmap what was written since the last call, as a submit requires, and return it."""
        sealed, self._open = self._open, []
        for chunk in sealed:
            lib.wgpuBufferUnmap(chunk.raw._internal)
        return sealed

    def recycle(self, chunks: Iterable[Chunk]) -> None:
        """Ask for chunks to be mapped again once the GPU has read them; later submits and polls bring them back."""
        for chunk in chunks:
            number = next(_serial)
            _returning[number] = (self, chunk)
            self._info.userdata1 = ffi.cast("void *", number)
            lib.wgpuBufferMapAsync(chunk.raw._internal, lib.WGPUMapMode_Write, 0, chunk.size, self._info[0])

    def wait(self) -> None:
        """Wait until the GPU has done all work, and so until chunks are mapped again."""
        libf.wgpuDevicePoll(self._device._internal, True, ffi.NULL)

    def returned(self, chunk: Chunk, mapped: bool) -> None:
        """Take a chunk back; one that could not be mapped, as its device was lost, is forgotten."""
        if mapped:
            # NOTE: its address is asked for when it is used: the device may be gone by the time that this is called.
            self._free.setdefault(chunk.size, []).append(chunk)
        else:
            self._bytes -= chunk.size

    def trim(self) -> None:
        """Destroy the chunks that wait."""
        for free in self._free.values():
            for chunk in free:
                chunk.raw.destroy()
                self._bytes -= chunk.size
        self._free.clear()
