"""DeviceLoader: batches of a loader as tensors, uploaded while the device still works on those before them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import closing
from typing import Any

import numpy as np

from wgpu_nn.data import DataLoader, StreamLoader
from wgpu_nn.data.collate import mapped_leaves
from wgpu_nn.errors import DataError
from wgpu_nn.tensor import Device, Tensor, tensor


class DeviceLoader:
    """Yields what a loader yields, with a tensor on ``device`` for each array, for a loop of your own::

        for images, labels in DeviceLoader(loader, device).epoch(0):
            step(images, labels)

    ``ahead`` batches are uploaded before the one that is yielded: an upload only records a copy, which the device does after
    the launches before it, so the host reads and copies batch k + 1 while step k runs. Texts stay NumPy arrays. What the loader
    raises goes through; ``ahead`` below 0 raises DataError.
    """

    def __init__(self, loader: DataLoader | StreamLoader, device: Device, ahead: int = 1) -> None:
        if ahead < 0:
            raise DataError(f"DeviceLoader: expected ahead >= 0, got {ahead}; 1 is usual")
        self.loader, self.device, self.ahead = loader, device, ahead

    def epoch(self, epoch: int, start_batch: int = 0) -> Generator[Any, None, None]:
        """Iterate over the batches of an epoch from ``start_batch`` on; leaving early ends the loader's workers."""
        waiting: deque[Any] = deque()
        with closing(self.loader.epoch(epoch, start_batch)) as batches:
            for batch in batches:
                waiting.append(mapped_leaves(batch, self._uploaded))
                if len(waiting) > self.ahead:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()

    def _uploaded(self, array: np.ndarray) -> Tensor | np.ndarray:
        return array if array.dtype.kind in "OSU" else tensor(array, self.device)
