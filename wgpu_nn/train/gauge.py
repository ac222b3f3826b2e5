"""What a run takes from its GPU, by the device's own counts; there is nothing to read on the CPU."""

from __future__ import annotations

from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.tensor import Device


class Gauge:
    """Launches per step since ``start``, and the bytes in use at present; None on NumPy."""

    def __init__(self, device: Device) -> None:
        root = device.root
        self._gpu = root.gpu if isinstance(root, Wgpu) else None
        self._launches = self._steps = 0

    def start(self) -> None:
        """Begin to count."""
        self._launches = 0 if self._gpu is None else self._gpu.counts.launches
        self._steps = 0

    def count(self) -> None:
        """Note a step."""
        self._steps += 1

    def launches(self) -> float | None:
        """Return the mean number of launches of a step."""
        if self._gpu is None or not self._steps:
            return None
        return (self._gpu.counts.launches - self._launches) / self._steps

    def nbytes(self) -> int | None:
        """Return the bytes of GPU memory that tensors and captured steps hold."""
        return None if self._gpu is None else self._gpu.pool.stats().live_bytes
