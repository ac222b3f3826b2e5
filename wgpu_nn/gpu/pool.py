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

    __slots__ = ("__weakref__", "_give", "_lender", "block", "nbytes")

    def __init__(
        self, block: Block, nbytes: int, give: Callable[[Block], None] | None, lender: Buffer | None = None
    ) -> None:
        self.block, self.nbytes, self._give, self._lender = block, nbytes, give, lender

    def lend(self) -> Buffer:
        """Return another lease on the same block, which can be moved away from it alone."""
        return Buffer(self.block, self.nbytes, None, self)

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

    ``create`` makes a raw buffer; ``largest`` is the most bytes that one buffer may have, and ``limit`` that limit's name.
    """

    def __init__(self, create: Callable[[int], wgpu.GPUBuffer], largest: int, limit: str) -> None:
        self._create, self.largest, self._limit = create, largest, limit
        self._free: dict[int, list[Block]] = {}
        self._blocks: dict[int, Block] = {}
        self._created = 0
        self._reused = 0

    def lease(self, nbytes: int) -> Buffer:
        """Return a buffer of ``nbytes`` or more with undefined contents."""
        if nbytes > self.largest:
            raise DeviceLimitError(
                f"buffer: expected at most {self.largest} bytes ({self._limit} of this adapter), got {nbytes}; "
                "split the tensor, use a smaller batch, or another adapter"
            )
        size = min(size_class(nbytes), self.largest & ~15)
        size = max(size, -(-nbytes // 16) * 16)
        free = self._free.setdefault(size, [])
        try:
            block = free.pop()  # one operation, so that threads need no lock
            self._reused += 1
        except IndexError:
            block = Block(self._create(size), size)
            self._blocks[block.id] = block
            self._created += 1
        return Buffer(block, nbytes, self._give)

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
