"""Counter-based random numbers in NumPy, bit for bit those of shaders/lib/random.wgsl.

Threefry-2x32 with 13 rounds, the shortest that passes BigCrush (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", 2011). Element i of a draw is word i % 2 of the block with key (seed, stream) and counter (i // 2, 0), so any
element can be computed alone, on any device, in any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from wgpu_nn.shape import Shape, size

ROUNDS = 13
ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA  # the key schedule's constant, table 2 of the paper


def words(seed: int, stream: int, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both u32 words of the blocks 0 .. blocks - 1."""
    key = [np.uint32(int(seed) & 0xFFFFFFFF), np.uint32(int(stream) & 0xFFFFFFFF)]
    key.append(np.uint32(PARITY) ^ key[0] ^ key[1])
    with np.errstate(over="ignore"):
        x = np.arange(blocks, dtype=np.uint32) + key[0]
        y = np.full(blocks, key[1], np.uint32)
        for i in range(ROUNDS):
            turn = np.uint32(ROTATIONS[i % 8])
            x += y
            y = (y << turn) | (y >> (np.uint32(32) - turn))
            y ^= x
            if i % 4 == 3:
                r = i // 4 + 1
                x += key[r % 3]
                y += key[(r + 1) % 3] + np.uint32(r)
    return x, y


def uniform(seed: Any, stream: Any, shape: Shape) -> np.ndarray:
    """Return f32 multiples of 2^-24 in [0, 1)."""
    n = size(shape)
    x, y = words(seed, stream, (n + 1) // 2)
    bits = np.stack([x, y], axis=1).reshape(-1)[:n]
    return ((bits >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)).reshape(shape)


def normal(seed: Any, stream: Any, shape: Shape) -> np.ndarray:
    """Return standard normal numbers by Box and Muller's transform of each block's two words."""
    n = size(shape)
    x, y = words(seed, stream, (n + 1) // 2)
    u = ((x >> np.uint32(8)).astype(np.float32) + np.float32(1.0)) * np.float32(2.0**-24)  # in (0, 1]: log stays finite
    angle = (y >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24 * 2 * np.pi)
    radius = np.sqrt(np.float32(-2.0) * np.log(u))
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:n].reshape(shape)
