"""Buffers in size classes, reused in stream order; knows nothing of what they hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import wgpu

from wgpu_nn.errors import DeviceLimitError

USAGE = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
SMALLEST = 256

_serial = itertools.count(1)


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

    __slots__ = ("__weakref__", "_give", "_lender", "_window", "block", "nbytes")

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
        self.block, self._lender = to.block, to

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
    """Bytes and counts of a pool; ``created`` and ``reused`` count leases since the device was opened."""

    live_bytes: int
    pooled_bytes: int
    blocks: int
    created: int
    reused: int


def size_class(nbytes: int) -> int:
    """Return the block size for ``nbytes``: 1, 1.25, 1.5 or 1.75 times a power of two, so at most 25% is wasted."""
    if nbytes <= SMALLEST:
        return SMALLEST
    step = 1 << max((nbytes - 1).bit_length() - 3, 4)
    return -(-nbytes // step) * step


class Pool:
    """Hands out buffers. Free lists are stacks, so the same step takes the same blocks each time.

    ``create`` makes a raw buffer of ``largest`` bytes at most; launches bind ``bindable`` bytes of one at most, and what
    fits into that gets a buffer that does.
    """

    def __init__(self, create: Callable[[int], wgpu.GPUBuffer], largest: int, bindable: int) -> None:
        self._create, self.largest, self.bindable = create, largest, bindable
        self._free: dict[int, list[Block]] = {}
        self._blocks: dict[int, Block] = {}
        self._created = 0
        self._reused = 0

    def lease(self, nbytes: int) -> Buffer:
        """Return a buffer of ``nbytes`` or more with undefined contents."""
        if nbytes > self.largest:
            raise DeviceLimitError(
                f"buffer: expected at most {self.largest} bytes (max-buffer-size of this device), got {nbytes}; "
                "split the tensor, use a smaller batch, or another adapter"
            )
        size = self.size_of(nbytes)
        free = self._free.setdefault(size, [])
        try:
            block = free.pop()  # one operation, so that threads need no lock
            self._reused += 1
        except IndexError:
            block = Block(self._create(size), size)
            self._blocks[block.id] = block
            self._created += 1
        return Buffer(block, nbytes, self._give)

    def size_of(self, nbytes: int) -> int:
        """Return the bytes of the block that a lease of ``nbytes`` gets."""
        most = (self.bindable if nbytes <= self.bindable else self.largest) & ~15
        return max(min(size_class(nbytes), most), -(-nbytes // 16) * 16)

    def _give(self, block: Block) -> None:
        if block.id in self._blocks:
            self._free.setdefault(block.size, []).append(block)

    def drain(self) -> list[Block]:
        """Take every free block out of the pool and return them; the caller destroys them."""
        out = [b for free in self._free.values() for b in free]
        self._free.clear()
        for b in out:
            del self._blocks[b.id]
        for b in self._blocks.values():
            self._free.setdefault(b.size, [])
        return out

    def stats(self) -> PoolStats:
        """Return what is leased and what waits for reuse."""
        pooled = sum(size * len(free) for size, free in self._free.items())
        total = sum(b.size for b in self._blocks.values())
        return PoolStats(total - pooled, pooled, len(self._blocks), self._created, self._reused)
