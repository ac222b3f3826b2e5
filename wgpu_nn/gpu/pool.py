"""Buffers in size classes, reused in stream order; knows nothing of what they hold."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import wgpu

from wgpu_nn.errors import DeviceLimitError

USAGE = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
SMALLEST = 256

_serial = itertools.count(1)


def next_block() -> int:
    """Return a number that all blocks of the future are above of."""
    return next(_serial)


class Block:
    """A GPU buffer of a size class."""

    __slots__ = ("groups", "id", "raw", "size")

    def __init__(self, raw: wgpu.GPUBuffer, size: int) -> None:
        self.raw, self.size = raw, size
        self.id = next(_serial)
        self.groups: set[tuple[object, ...]] = set()  # keys of cached bind groups that name this block


class Buffer:
    """A lease on a block: when the last reference goes, the block returns to its pool.

    That is safe while recorded launches still use the block, as whatever takes it next is recorded after them.
    """

    __slots__ = ("__weakref__", "_give", "_lender", "_window", "block", "nbytes", "place")

    def __init__(
        self,
        block: Block,
        nbytes: int,
        give: Callable[[Block], None] | None,
        lender: Buffer | None = None,
        window: tuple[int, int] | None = None,
    ) -> None:
        self.block, self.nbytes, self._give, self._lender = block, nbytes, give, lender
        self._window = window
        # What launches see, as a key: bind groups are found by it.
        self.place: int | tuple[int, int, int] = block.id if window is None else (block.id, *window)

    def lend(self) -> Buffer:
        """Return another lease on the same block, which can be moved away from it alone."""
        return Buffer(self.block, self.nbytes, None, self)

    def window(self, offset: int, nbytes: int) -> Buffer:
        """Return a lease on part of the block, in bytes from this one's start: what a launch is to see of it."""
        return Buffer(self.block, nbytes, None, self, (self.bound[0] + offset, -(-nbytes // 16) * 16))

    @property
    def bound(self) -> tuple[int, int]:
        """Where in the block launches begin to see it, and how many bytes they see: all, unless it is a window."""
        return self._window or (0, self.block.size)

    @property
    def lent(self) -> bool:
        """Whether the lease is another's, and may be moved."""
        return self._lender is not None

    def move(self, to: Buffer) -> None:
        """Let a lent lease be one on ``to`` instead; whoever holds it sees the other block from now on."""
        self.block, self.place, self._lender = to.block, to.place, to

    def __del__(self) -> None:
        if self._give is not None:
            self._give(self.block)


class Segment(NamedTuple):
    """Part of a buffer, in bytes."""

    buffer: Buffer
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class PoolStats:
    """Bytes and counts of the buffers that hold tensors.

    ``live_bytes`` are in use, in ``live`` buffers, and were ``peak_bytes`` at most; ``pooled_bytes`` wait for reuse. Of
    ``blocks`` buffers in all, live and pooled, the sizes are rounded up to their class. ``created`` and ``reused`` count
    how leases were served since the device was opened. ``limit_bytes`` bounds live and pooled bytes; None: the driver does.
    """

    live_bytes: int
    pooled_bytes: int
    blocks: int
    created: int
    reused: int
    live: int = 0
    peak_bytes: int = 0
    limit_bytes: int | None = None


def size_class(nbytes: int) -> int:
    """Return the block size for ``nbytes``: 1, 1.25, 1.5 or 1.75 times a power of two, so at most 25% is wasted."""
    if nbytes <= SMALLEST:
        return SMALLEST
    step = 1 << max((nbytes - 1).bit_length() - 3, 4)
    return -(-nbytes // step) * step


@functools.lru_cache(1 << 12)
def _block_size(nbytes: int, most: int) -> int:
    return max(min(size_class(nbytes), most & ~15), -(-nbytes // 16) * 16)


class Pool:
    """Hands out buffers. Free lists are stacks, so the same step takes the same blocks each time.

    ``create`` makes a raw buffer of ``largest`` bytes at most; launches bind ``bindable`` bytes of one at most, and what
    fits into that gets a buffer that does.
    """

    def __init__(self, create: Callable[[int], wgpu.GPUBuffer], largest: int, bindable: int) -> None:
        self.create, self.largest, self.bindable = create, largest, bindable
        self.leased: Callable[[Buffer], None] | None = None  # is told of every lease
        self._free: dict[int, list[Block]] = {}
        self._blocks: dict[int, Block] = {}
        self._created = 0
        self._reused = 0
        # A lease may end at any line of any thread, in the middle of another one's beginning.
        self.lock = threading.RLock()
        self._live_bytes = self._live = self._peak = self._bytes = 0

    def lease(self, nbytes: int) -> Buffer:
        """Return a buffer of ``nbytes`` or more with undefined contents."""
        if nbytes > self.largest:
            raise DeviceLimitError(
                f"buffer: expected at most {self.largest} bytes (max-buffer-size of this device), got {nbytes}; "
                "split the tensor, use a smaller batch, or another adapter"
            )
        size = self.size_of(nbytes)
        try:
            block = self._free[size].pop()  # one operation, so that threads need no lock
            self._reused += 1
        except (IndexError, KeyError):
            block = Block(self.create(size), size)
            with self.lock:
                self._blocks[block.id] = block
                self._bytes += size
            self._created += 1
        with self.lock:
            self._live += 1
            self._live_bytes += size
            if self._live_bytes > self._peak:
                self._peak = self._live_bytes
        found = Buffer(block, nbytes, self._give)
        if self.leased is not None:
            self.leased(found)
        return found

    def size_of(self, nbytes: int) -> int:
        """Return the bytes of the block that a lease of ``nbytes`` gets."""
        return _block_size(nbytes, self.bindable if nbytes <= self.bindable else self.largest)

    def _give(self, block: Block) -> None:
        with self.lock:
            self._live -= 1
            self._live_bytes -= block.size
        self._free.setdefault(block.size, []).append(block)

    def drain(self) -> list[Block]:
        """Take every free block out of the pool and return them; the caller destroys them."""
        out: list[Block] = []
        for free in list(self._free.values()):
            while True:
                try:
                    out.append(free.pop())  # and not all at once: another thread may be taking one
                except IndexError:
                    break
        with self.lock:
            for b in out:
                del self._blocks[b.id]
                self._bytes -= b.size
        return out

    @property
    def total_bytes(self) -> int:
        """The bytes of all blocks, leased or free."""
        return self._bytes

    def reset_peak(self) -> None:
        """Let the peak be what is live now."""
        with self.lock:
            self._peak = self._live_bytes

    def stats(self) -> PoolStats:
        """Return what is leased and what waits for reuse."""
        with self.lock:
            live, total, blocks = self._live_bytes, self._bytes, len(self._blocks)
            return PoolStats(live, total - live, blocks, self._created, self._reused, self._live, self._peak)
