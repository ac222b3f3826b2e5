"""The command stream: records launches and copies, encodes them together, and orders uploads and reads among them.

The only place that encodes, but for timestamps.py; the sender submits. Everything here runs under one lock, so that threads
may share a device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import wgpu

from wgpu_nn.errors import DeviceError, DeviceLimitError, DeviceLostError
from wgpu_nn.gpu import process
from wgpu_nn.gpu.commands import (
    Bound,
    Commands,
    Grid,
    Launch,
    Observer,
    Prepared,
    Replay,
    Resource,
    Transfer,
    bind_group,
    transfer,
)
from wgpu_nn.gpu.failure import device_errors, losses
from wgpu_nn.gpu.kernel import PARAMS_BYTES, Kernel
from wgpu_nn.gpu.limits import beyond_binding
from wgpu_nn.gpu.native import ffi, lib, libf
from wgpu_nn.gpu.pool import Buffer, Segment, next_block
from wgpu_nn.gpu.readback import Landing, Readback, give_up
from wgpu_nn.gpu.sender import Sender, Submission, Write
from wgpu_nn.gpu.staging import LARGEST, Staging
from wgpu_nn.gpu.timestamps import timed

if TYPE_CHECKING:
    from wgpu_nn.gpu.device import Gpu

SLOTS = 256  # launches with parameters that one submit can hold
BATCH = 64  # eager launches after which a batch goes to the GPU, so that it works while Python records the next
READ_CHUNK = 1 << 26
MOST_WAITING = 1 << 24  # bytes of uploads, and parts, after which a batch without launches goes as well
MOST_PARTS = 1024
MOST_GROUPS = 8192  # cached bind groups; far more than any steady state has

_kept: list[object] = []  # what a forked child must not release


class Stream:
    """Records launches and copies into the open batch, in order; a read, a full batch, ``flush`` or ``sync`` submits it."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._device = gpu.raw
        self._queue = gpu.raw.queue
        self._parts: list[list[Launch] | Transfer] = []  # the open batch: launches that share a pass, and copies
        self._pass: list[Launch] | None = None  # the last part, if launches may be added to it
        self._held: list[object] = []  # what the open batch refers to by raw handles
        self._eager = 0
        self._step = max(PARAMS_BYTES, gpu.limits["min-uniform-buffer-offset-alignment"])
        self._params = bytearray(SLOTS * self._step)
        self._slots = 0
        self._arena = gpu.raw.create_buffer(
            size=SLOTS * self._step, usage=wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.COPY_DST
        )
        self._groups: dict[tuple[object, ...], wgpu.GPUBindGroup] = {}
        self._staging = Staging(gpu.raw)
        self._readback = Readback(gpu.raw, gpu.software, self._alive, self._push)
        self._sender = Sender(self._queue)
        self._writes: list[Write] = []  # what lands before the open batch
        self._landings: list[Landing] = []  # what it copies bytes to
        self.lock: AbstractContextManager[object] = threading.RLock()
        self._first = next_block()  # blocks of lower numbers were there before the device was reset
        self._losses = losses()
        self._lost = False
        self.observer: Observer | None = None  # is told of what is bound and submitted, and encodes launches itself
        self.batch = BATCH

    # --- whether there is a device -----------------------------------------------------------------------------------
    @contextmanager
    def _alive(self, sure: bool = True) -> Iterator[None]:
        """Have the device to oneself; raises RuntimeError if it is lost, and its mapped memory with it.

        Unless one must be ``sure``, the device is asked (10 us) only when some device was lost since it was last.
        """
        with self.lock:
            if sure or self._losses != losses():
                self._losses = losses()
                try:  # NOTE: not by a submit, which aborts the process where the device is lost
                    lib.wgpuCommandBufferRelease(Commands(self._device).finish())
                except wgpu.GPUError:
                    self._lost = True
            if self._lost:
                raise RuntimeError("device is lost")
            yield

    def check(self, *buffers: Buffer) -> None:
        """Raise for buffers that were there before the device was reset."""
        if any(b.block.id < self._first for b in buffers):
            raise DeviceLostError(
                "tensor: expected one of the device as it is, got one from before its reset; make it again, or load it "
                "from a checkpoint"
            )

    def cut(self) -> None:
        """Let every later use raise: this is a fork of the process that opened the device."""
        self.lock = process.Refused()
        # NOTE: a normal exit would release handles, and wait for threads of the driver that are not here.
        _kept.append((self._gpu.__dict__.copy(), self.__dict__.copy()))

    # --- launches --------------------------------------------------------------------------------------------------
    def launch(self, kernel: Kernel, buffers: Sequence[Buffer], grid: Grid, params: bytes = b"") -> None:
        """Record one dispatch of ``grid`` workgroups; ``params`` are the kernel's, at most PARAMS_BYTES."""
        if 0 not in grid:
            self.dispatch(self.prepare(kernel, grid), buffers, params)

    def prepare(self, kernel: Kernel, grid: Grid) -> Prepared:
        """Compile a kernel for launches of ``grid`` workgroups, to be used until ``Gpu.generation`` grows."""
        most = self._gpu.limits["max-compute-workgroups-per-dimension"]
        if max(grid) > most:
            raise DeviceLimitError(
                f"{kernel.name}: expected at most {most} workgroups per dimension "
                f"(max-compute-workgroups-per-dimension of this adapter), got {grid}"
            )
        with self.lock:
            pipeline = self._gpu.pipeline(kernel)._internal
            return Prepared(kernel, pipeline, grid, (kernel.access, kernel.params), self._gpu.generation)

    def dispatch(self, prepared: Prepared, buffers: Sequence[Buffer], params: bytes | bytearray) -> None:
        """Record one dispatch. Every op of eager mode comes through here: what can be done before, is done in ``prepare``."""
        with self.lock:
            if prepared.generation != self._gpu.generation:  # its pipeline may be gone
                prepared = self.prepare(prepared.kernel, prepared.grid)
            kernel, pipeline, grid, layout, _ = prepared
            key = (layout, *[b.place for b in buffers])
            group = self._groups.get(key) or self._group(key, kernel, buffers)
            offset = -1
            if layout[1]:
                if self._slots == SLOTS:
                    self.flush()
                offset = self._slots * self._step
                self._params[offset : offset + len(params)] = params
                self._slots += 1
            if self.observer is not None:
                self.observer.bound(group._internal, kernel, [Segment(b, b.bound[0], b.nbytes) for b in buffers])
            self._open().append((pipeline, group._internal, offset, grid))
            self._eager += 1
            if self._eager >= self.batch:
                with device_errors("submit"):
                    self._submit(later=True)

    def _open(self) -> list[Launch]:
        """Return the launches that the next one shares a pass with."""
        if self._pass is None:
            self._pass = []
            self._parts.append(self._pass)
        return self._pass

    @property
    def waiting(self) -> int:
        """How many launches are recorded and not submitted yet."""
        return sum(len(part) for part in self._parts if isinstance(part, list))

    def copy(self, source: Segment, target: Segment) -> None:
        """Record a copy of as many bytes as both hold; both are multiples of 4."""
        with self.lock:
            self.check(source.buffer, target.buffer)
            self._transfer(transfer(source, target))

    def _transfer(self, copy: Transfer) -> None:
        self._parts.append(copy)
        self._pass = None

    def _group(self, key: tuple[object, ...], kernel: Kernel, buffers: Sequence[Buffer]) -> wgpu.GPUBindGroup:
        """Make the bind group of a launch, and keep it for the next one on the same buffers."""
        self.check(*buffers)
        found = self._bind(kernel, [Segment(b, *b.bound) for b in buffers])
        if len(self._groups) >= MOST_GROUPS:
            self.flush()
            self._groups.clear()
        self._groups[key] = found
        for b in buffers:
            b.block.groups.add(key)
        return found

    @property
    def arena(self) -> Resource:
        """What to bind for a launch's parameters."""
        return (self._arena, 0, PARAMS_BYTES)

    def _bind(self, kernel: Kernel, places: Sequence[Segment]) -> wgpu.GPUBindGroup:
        """Return the bind group of a kernel's storage bindings, of which it may take four elements at once, and parameters."""
        most = self._gpu.pool.bindable
        for p in places:
            if p.nbytes > most:
                raise beyond_binding(kernel.name, most, p.nbytes)
        resources: list[Resource] = [(p.buffer.block.raw, p.offset, max(-(-p.nbytes // 16) * 16, 16)) for p in places]
        if kernel.params:
            resources.append(self.arena)
        with device_errors(kernel.name):
            found = bind_group(self._device, self._gpu.layout(kernel.access, kernel.params)[0], resources)
        self._gpu.counts.bind_groups += 1
        return found

    def parameters(self, offset: int) -> bytes:
        """Return what a recorded launch was given as parameters."""
        return bytes(self._params[offset : offset + PARAMS_BYTES])

    # --- replay ----------------------------------------------------------------------------------------------------
    def bind(self, kernel: Kernel, places: Sequence[Segment], grid: Grid) -> Bound:
        """Compile a kernel without parameters and bind it, once for many replays."""
        with self.lock, device_errors(kernel.name):
            self.check(*(p.buffer for p in places))
            pipeline = self._gpu.pipeline(kernel)
            group = self._bind(kernel, places)
            if self.observer is not None:
                self.observer.bound(group._internal, kernel, places)
            return Bound((pipeline._internal, group._internal, -1, grid), group, pipeline)

    def replay(
        self, replay: Replay, copies: Sequence[Transfer], upload: tuple[Segment, bytes] | None, submit: bool
    ) -> None:
        """Record bound launches, then copies, and ``submit`` them unless more is to go with them.

        ``upload`` lands before all that is not submitted yet: the place must not be in use by what is recorded. The submit
        itself is made while the caller goes on; what goes wrong with it is raised by the next call that submits or reads.
        """
        with device_errors("replay"), self._alive(sure=False):
            if upload is not None:
                place, data = upload
                self._writes.append((place.buffer.block.raw, place.offset, data))
            self._open().extend(replay.launches)
            for c in copies:
                self._transfer(c)
            self._held.append(replay)
            if submit:
                self._submit(later=True)

    def timed(self, launches: Sequence[Bound]) -> list[float]:
        """Run bound launches once, a pass each, and return the seconds that the GPU took for every one."""
        with self.lock, device_errors("timestamps"):
            self.flush()
            return timed(self._gpu, launches)

    def flush(self) -> None:
        """Submit what is recorded, in one command buffer."""
        with self.lock, device_errors("submit"):
            if self._parts:
                self._submit()
            else:
                self._settle(self._sender.drain())

    def _push(self, now: bool) -> None:
        """Submit the reads that are recorded, with all before them: ``now``, or while the caller goes on."""
        with self.lock, device_errors("submit"):
            if now:
                self.flush()
            elif self._landings:
                self._submit(later=True)

    def _submit(self, later: bool = False) -> None:
        """Record the batch as commands and hand them to the queue; ``later``: while the caller goes on, unless observed."""
        parts, slots, held, writes, landings = self._parts, self._slots, self._held, self._writes, self._landings
        self._parts, self._slots, self._eager, self._pass = [], 0, 0, None
        self._held, self._writes, self._landings = [], [], []
        if slots:  # queue order makes one arena enough: this write lands after the last submit and before this one
            writes.append((self._arena, 0, bytes(memoryview(self._params)[: slots * self._step])))
        try:
            submission = Submission(Commands(self._device, self.observer), writes, self._staging.seal(), held, landings)
            self._send(submission, submission.commands.record(parts), later)
        except BaseException as error:
            give_up(landings, error)
            raise

    def _send(self, submission: Submission, launches: int, later: bool = False) -> None:
        if later and self.observer is None:
            self._settle(self._sender.room())
            self._sender.later(submission)
        else:
            self._settle(self._sender.drain())
            try:
                submission.submit(self._queue)
            finally:
                self._staging.recycle(submission.sealed)
        self._gpu.counts.submits += 1
        self._gpu.counts.launches += launches
        if self.observer is not None:
            self.observer.submitted()

    def _settle(self, submitted: Sequence[Submission]) -> None:
        """Take back memory of what the sender has done with, and raise what went wrong."""
        for submission in submitted:
            self._staging.recycle(submission.sealed)
        for submission in submitted:
            if submission.failure is not None:
                raise submission.failure

    def alone(self, write: Callable[[Any], None], launches: int) -> None:
        """Submit what is recorded, and then what ``write`` puts into a raw command encoder of its own."""
        with self.lock, device_errors("submit"):
            self.flush()
            commands = Commands(self._device)
            commands.write(write)
            self._send(Submission(commands), launches)

    # --- data ------------------------------------------------------------------------------------------------------
    def upload(self, buffer: Buffer, data: np.ndarray) -> None:
        """Copy ``data`` (contiguous, 4-byte elements) to the start of ``buffer``, after all launches that use it."""
        with device_errors("upload"), self._alive(sure=False):
            self.check(buffer)
            if 0 < data.nbytes <= LARGEST:
                raw, start = self._staging.write(data.data.cast("B"))
                self._transfer((raw, start, buffer.block.raw, 0, data.nbytes))
                if self._staging.waiting >= MOST_WAITING or len(self._parts) >= MOST_PARTS:
                    self.flush()
            elif data.nbytes:
                self.flush()  # a queue write overtakes what is recorded but not submitted
                self._queue.write_buffer(buffer.block.raw, 0, data)
            self._gpu.counts.uploads += 1

    def read(self, buffer: Buffer, offset: int, nbytes: int) -> bytearray:
        """Return ``nbytes`` (a multiple of 4) of ``buffer`` from ``offset``, after all recorded launches."""
        if 0 < nbytes <= READ_CHUNK:
            return self._land(buffer, offset, nbytes).result(sure=False)  # a submit has asked the device just now
        out = bytearray(nbytes)
        for start in range(0, nbytes, READ_CHUNK):
            count = min(READ_CHUNK, nbytes - start)
            out[start : start + count] = self._land(buffer, offset + start, count).result(sure=False)
        return out

    def read_later(self, parts: Sequence[tuple[Buffer, int, int]]) -> list[Landing]:
        """Begin to read parts of buffers as ``read`` does one, all together, and wait for nothing; calls that share a submit
        take the copies along."""
        with self.lock, device_errors("read"):
            landings = [self._land(*part) for part in parts]
            if not self._held or len(self._parts) >= MOST_PARTS:
                self._push(False)
            return landings

    def _land(self, buffer: Buffer, offset: int, nbytes: int) -> Landing:
        """Record the copy of ``nbytes`` (not 0) to where the host can read them; who asks for them submits it."""
        with self.lock, device_errors("read"):
            self.check(buffer)
            landing = self._readback.take(nbytes)
            self._transfer((buffer.block.raw, offset, landing.raw, 0, nbytes))
            self._landings.append(landing)
            self._gpu.counts.reads += 1
            return landing

    def sync(self) -> None:
        """Submit what is recorded and wait until the GPU has done it."""
        with device_errors("sync"), self._alive():
            self.flush()
            libf.wgpuDevicePoll(self._device._internal, True, ffi.NULL)

    def close(self) -> None:
        """Finish what is under way, and let reads that were not taken fail from now on: the device is about to go.

        Whoever asks for memory that was mapped for a device that is gone by then aborts the process.
        """
        with suppress(DeviceError):  # it may be lost already
            self.sync()
        self._readback.close()
        self._lost = True

    # --- memory ----------------------------------------------------------------------------------------------------
    def trim(self) -> None:
        """Destroy the buffers that wait for reuse, and forget the bind groups that name them."""
        with self.lock:
            self.flush()
            for block in self._gpu.pool.drain():
                for key in block.groups:
                    self._groups.pop(key, None)
                block.raw.destroy()
            self._staging.trim()
            self._readback.trim()
