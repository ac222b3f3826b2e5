"""DeviceLoader: the loader's batches on a device, one upload ahead, and in order with what is launched between."""

from __future__ import annotations

import numpy as np
import pytest

from wgpu_nn import Device, Tensor
from wgpu_nn.data import ArrayDataset, DataLoader, StreamLoader, mapped_stream
from wgpu_nn.errors import DataError
from wgpu_nn.train import DeviceLoader

X = np.random.default_rng(0).random((11, 3, 2), dtype=np.float32)


def loader() -> DataLoader:
    return DataLoader(ArrayDataset(X, np.arange(11)), 4, shuffle=True, seed=2)


@pytest.mark.parametrize("ahead", [0, 1, 2, 9])
def test_batches_on_a_device_are_those_of_the_loader(gpu_device: Device, ahead: int) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    for x, y in DeviceLoader(loader(), gpu_device, ahead).epoch(1, 1):
        seen.append((x * 2.0, y))  # launched between the uploads of others
    want = list(loader().epoch(1, 1))
    assert len(seen) == len(want) == 2
    for (x, y), (a, b) in zip(seen, want, strict=True):
        np.testing.assert_array_equal(x.numpy(), 2 * a)
        assert y.tolist() == b.tolist()


def test_one_batch_is_uploaded_before_it_is_asked_for(cpu: Device) -> None:
    read: list[int] = []

    def note(i: int) -> dict[str, object]:
        read.append(i)
        return {"x": np.float32(i), "name": f"n{i}"}

    stream = StreamLoader(mapped_stream(range(6), note), 2, prefetch=0)
    batches = DeviceLoader(stream, cpu).epoch(0)
    first = next(batches)
    assert read == [0, 1, 2, 3] and first["x"].tolist() == [0, 1] and first["name"].tolist() == ["n0", "n1"]
    assert len(list(batches)) == 2


def test_less_than_no_batch_ahead_is_refused(cpu: Device) -> None:
    with pytest.raises(DataError, match="expected ahead >= 0"):
        DeviceLoader(loader(), cpu, -1)
