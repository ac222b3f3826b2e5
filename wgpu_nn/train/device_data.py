"""DeviceDataset: arrays that stay on a device; a step gathers its batch there, so that only indices are uploaded."""

from __future__ import annotations

import numpy as np

from wgpu_nn.dtype import Int
from wgpu_nn.errors import DataError, KindError
from wgpu_nn.tensor import Device, Tensor, tensor


class DeviceDataset:
    """Arrays of one length, uploaded once; none, empty ones and other lengths raise DataError.

    Inside a captured step ``batch(indices)`` is a gather like any other op::

        data = DeviceDataset(images, labels, device=device)

        @capture(state=[model, optimizer])
        def step(indices: Tensor) -> Tensor:
            x, y = data.batch(indices)
            ...
    """

    def __init__(self, *arrays: np.ndarray, device: Device) -> None:
        if not arrays or not len(arrays[0]):
            raise DataError("DeviceDataset: expected at least one array with at least one element, got none")
        if any(len(a) != len(arrays[0]) for a in arrays):
            raise DataError(f"DeviceDataset: expected arrays of one length, got {[len(a) for a in arrays]}")
        self.tensors = tuple(tensor(a, device) for a in arrays)

    def __len__(self) -> int:
        return len(self.tensors[0])

    def batch(self, indices: Tensor) -> tuple[Tensor, ...]:
        """[n] Int -> the elements that ``indices`` name, of every array; one out of range gives NaN, or 0 for Ints.

        Other indices raise KindError.
        """
        if indices.kind is not Int or indices.rank != 1:
            raise KindError(f"DeviceDataset: expected Int indices of rank 1, got {indices.kind} {list(indices.shape)}")
        return tuple(t.index_select(0, indices) for t in self.tensors)
