"""Finishes command buffers and submits them, in order: at once, or on a thread of its own while the caller records the next.

What wgpu does then takes about as long as to record (2 us a launch), and holds no lock of Python's.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

import wgpu

from wgpu_nn.gpu import process
from wgpu_nn.gpu.commands import Commands
from wgpu_nn.gpu.native import ffi, lib, libf
from wgpu_nn.gpu.readback import Landing, give_up
from wgpu_nn.gpu.staging import Chunk

AHEAD = 2  # submits that may wait on the thread: enough to keep it busy, few enough for memory to come back soon

Write = tuple[wgpu.GPUBuffer, int, bytes]  # to where, and what


@dataclass(slots=True)
class Submission:
    """Recorded commands, what is written right before them, and what must live until they are submitted."""

    commands: Commands
    writes: list[Write] = field(default_factory=list[Write])
    sealed: list[Chunk] = field(default_factory=list[Chunk])
    held: list[object] = field(default_factory=list[object])
    landings: list[Landing] = field(default_factory=list[Landing])  # what it copies bytes to
    failure: BaseException | None = None

    def submit(self, queue: wgpu.GPUQueue) -> int:
        """Hand everything to the queue; return its number there."""
        for target, offset, data in self.writes:
            libf.wgpuQueueWriteBuffer(queue._internal, target._internal, offset, ffi.from_buffer(data), len(data))
        buffer = ffi.new("WGPUCommandBuffer[1]", [self.commands.finish()])  # raises if the device is lost
        number = libf.wgpuQueueSubmitForIndex(queue._internal, 1, buffer)
        lib.wgpuCommandBufferRelease(buffer[0])
        for landing in self.landings:
            landing.begin(number)
        return number


_Box = SimpleQueue[Submission | None]


class Sender:
    """Submits to a queue. Its callers take turns, and look at what comes back: it may have failed."""

    def __init__(self, queue: wgpu.GPUQueue) -> None:
        self._queue = queue
        self._inbox, self._outbox = _Box(), _Box()
        self._waiting = 0  # given to the thread and not taken back yet
        self._turn = threading.Lock()  # at exit the main thread drains, whoever else is at work
        self._thread: threading.Thread | None = None
        _senders.add(self)

    def later(self, submission: Submission) -> None:
        """Let the thread submit; whoever calls has made room."""
        if self._thread is None:
            given = (self._queue, self._inbox, self._outbox)
            self._thread = threading.Thread(target=_work, args=given, name="wgpu_nn submits", daemon=True)
            weakref.finalize(self, self._inbox.put, None)
            self._thread.start()
        with self._turn:
            self._waiting += 1
            self._inbox.put(submission)

    def room(self) -> list[Submission]:
        """Wait until one more may wait; return what the thread has done with since the last call."""
        return self._done(AHEAD - 1)

    def drain(self) -> list[Submission]:
        """Wait until nothing waits; return what the thread has done with since the last call."""
        return self._done(0) if self._waiting else []

    def _done(self, most: int) -> list[Submission]:
        found: list[Submission] = []
        with self._turn:
            while self._waiting:
                try:
                    submission = self._outbox.get(self._waiting > most)
                except Empty:
                    break
                self._waiting -= 1
                if submission is not None:
                    found.append(submission)
        return found


def _work(queue: wgpu.GPUQueue, inbox: _Box, outbox: _Box) -> None:
    while (submission := inbox.get()) is not None:
        try:
            submission.submit(queue)
        except BaseException as error:  # whoever takes it back raises it
            submission.failure = error
            give_up(submission.landings, error)
        outbox.put(submission)
        del submission  # what it holds is let go by those who take it back


_senders: weakref.WeakSet[Sender] = weakref.WeakSet()


@atexit.register
def _finish() -> None:
    """Leave no thread in the middle of a submit when the interpreter goes."""
    for sender in list(_senders):
        sender.drain()


process.in_children(_senders.clear)
