"""What shaders under test are given as memory: arrays between canaries, outputs filled with poison; and what became of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from wgpu_nn.errors import KindError, SanitizerError, ShapeError
from wgpu_nn.gpu import Buffer, ComputeStages, Place

POISON = 0xFFE5FFE5  # NaN as one f32 and as two f16, and no integer that anybody counts to
CANARY = 0xC0FFEE77
GUARD = 256  # bytes on each side; where a binding may start on every device
TYPES = {"f32": np.float32, "i32": np.int32, "u32": np.uint32, "f16": np.float16}


class Out:
    """An output: its shape and type. It is filled with poison, and every element must be written.

    With ``initial`` it starts from these values, and what the shader leaves alone stays as it was.
    """

    def __init__(
        self, shape: int | tuple[int, ...], dtype: Any = np.float32, initial: Any = None, partial: bool = False
    ) -> None:
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        self.dtype = np.dtype(dtype)
        self.initial = None if initial is None else np.broadcast_to(initial, self.shape).astype(self.dtype)
        self.partial = partial or initial is not None

    @property
    def nbytes(self) -> int:
        """Its size."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


def array_of(name: str, value: Any, scalar: str) -> np.ndarray:
    """Return an input as its binding wants it; lists and numbers take its type, arrays must have it."""
    wanted = TYPES.get(scalar)
    if not isinstance(value, np.ndarray) and wanted is not None:
        value = np.asarray(value, wanted)
    array = np.ascontiguousarray(value)
    if wanted is not None and array.dtype != wanted:
        raise KindError(
            f"shader: binding {name} expected {np.dtype(wanted)} (its elements are {scalar}), got {array.dtype}; "
            f"pass {name}.astype(np.{np.dtype(wanted).name})"
        )
    if not array.nbytes:
        raise ShapeError(f"shader: binding {name} expected at least one element, got shape {list(array.shape)}")
    return array


class Held:
    """A binding's memory on the device: the data, rounded up to whole words, with canaries around."""

    def __init__(self, stages: ComputeStages, name: str, value: np.ndarray | Out) -> None:
        self.name, self.out = name, value if isinstance(value, Out) else None
        if isinstance(value, Out):
            data = np.full(-(-value.nbytes // 4), POISON, np.uint32).view(np.uint8)
            if value.initial is not None:
                data[: value.nbytes] = np.ascontiguousarray(value.initial).reshape(-1).view(np.uint8)
        else:
            data = value.reshape(-1).view(np.uint8)
        self.before = np.zeros(-(-len(data) // 4) * 4, np.uint8)
        self.before[: len(data)] = data
        guard = np.full(GUARD // 4, CANARY, np.uint32).view(np.uint8)
        self._words = np.concatenate([guard, self.before, guard]).view(np.uint32)
        self._gpu = stages.gpu
        self.lease: Buffer
        self.lease, self.place = stages.storage(self._words, GUARD, len(self.before))

    def reset(self) -> None:
        """Let the memory be again what it was at first."""
        self._gpu.stream.upload(self.lease, self._words)

    def read(self) -> np.ndarray:
        """Return the bytes as they are now; raise if those around them changed."""
        found = np.frombuffer(self._gpu.stream.read(self.lease, 0, self._words.nbytes), np.uint32)
        edge = GUARD // 4
        for side, part, first in (("before", found[:edge], -edge), ("behind", found[-edge:], len(self.before) // 4)):
            wrong = np.flatnonzero(part != CANARY)
            if wrong.size:
                raise SanitizerError(
                    f"shader: binding {self.name}: expected writes inside of it, got {wrong.size} word(s) {side} it "
                    f"overwritten, the first at word {first + wrong[0]}; guard the store"
                )
        return found[edge:-edge].view(np.uint8)

    def result(self) -> np.ndarray:
        """Return an output; raise if parts of it were never written."""
        assert self.out is not None
        data = self.read()[: self.out.nbytes]
        array = data.view(self.out.dtype).reshape(self.out.shape)
        if not self.out.partial:
            poison = np.full(1, POISON, np.uint32).view(f"u{min(self.out.dtype.itemsize, 4)}")[0]
            words = data.view(f"u{min(self.out.dtype.itemsize, 4)}")
            left = np.flatnonzero(words == poison)
            if left.size:
                at = np.unravel_index(int(left[0]) * words.itemsize // self.out.dtype.itemsize, self.out.shape)
                raise SanitizerError(
                    f"shader: output {self.name}: expected all {array.size:,} elements to be written, got {left.size:,} "
                    f"that were not, the first at [{', '.join(str(int(i)) for i in at)}]; launch more workgroups, or give "
                    "Out an initial value"
                )
        return array


def uniform(stages: ComputeStages, name: str, value: Any, scalar: str) -> Place:
    """Return a uniform block with an array's bytes."""
    return stages.uniform(array_of(name, value, scalar).reshape(-1).view(np.uint8))
