"""What a run takes from its GPU, by the device's own counts; there is nothing to read on the CPU."""

from __future__ import annotations

from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.tensor import Device


class Gauge:
    """Launches per step between ``start`` and ``stop``, and the bytes in use at present; None on NumPy."""

    def __init__(self, device: Device) -> None:
        root = device.root
        self._gpu = root.gpu if isinstance(root, Wgpu) else None
        self._before = self._first = 0
        self._last: int | None = None

    def start(self, step: int) -> None:
        """Begin to count, after ``step`` steps."""
        self._before, self._first, self._last = self._recorded(), step, None

    def stop(self) -> None:
        """Leave out what is launched from now on, which belongs to no step."""
        self._last = self._recorded()

    def launches(self, step: int) -> float | None:
        """Return the mean number of launches of a step, after ``step`` steps."""
        if self._gpu is None or step == self._first:
            return None
        return ((self._recorded() if self._last is None else self._last) - self._before) / (step - self._first)

    def nbytes(self) -> int | None:
        """Return the bytes of GPU memory that tensors and captured steps hold."""
        return None if self._gpu is None else self._gpu.pool.stats().live_bytes

    def _recorded(self) -> int:
        """Return the launches so far, with those that wait for the submit that they share."""
        return 0 if self._gpu is None else self._gpu.counts.launches + self._gpu.stream.waiting
