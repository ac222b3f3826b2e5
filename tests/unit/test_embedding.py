"""Embedding: rows of a table, and the gradient that comes back to them."""

from __future__ import annotations

import numpy as np
import pytest

from wgpu_nn import Device, tensor
from wgpu_nn.errors import ConfigError, IndexRangeError, KindError
from wgpu_nn.nn import Constant, EmbeddingConfig

WIDE = Device("numpy:f64")


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 0), (1, 3, 2)])
def test_each_index_becomes_its_row(shape: tuple[int, ...]) -> None:
    layer = EmbeddingConfig(7, 3).init(WIDE)
    index = np.random.default_rng(0).integers(0, 7, shape)
    table = layer.weight.value.numpy()
    np.testing.assert_array_equal(layer.forward(tensor(index, WIDE)).numpy(), table[index])


@pytest.mark.parametrize("name", ["numpy:f64", "wgpu"])
def test_a_rows_gradient_is_the_sum_over_the_places_that_name_it(name: str, request: pytest.FixtureRequest) -> None:
    device = request.getfixturevalue("gpu_device") if name == "wgpu" else Device(name)
    layer = EmbeddingConfig(5, 3).init(device.autodiff())
    index = np.array([[4, 1, 1], [1, 4, 0]])
    g = np.random.default_rng(1).standard_normal((2, 3, 3)).astype(np.float32)
    out = (layer.forward(tensor(index, layer.device)) * tensor(g, layer.device)).sum()
    want = np.zeros((5, 3))
    np.add.at(want, index, g)
    # Sums of three f32 numbers below 3 differ in their last bits only.
    np.testing.assert_allclose(out.backward()[layer.weight.value].numpy(), want, rtol=1e-6, atol=1e-6)
    assert not want[[2, 3]].any()


def test_an_index_beyond_the_table_is_nan_on_a_gpu_and_an_error_on_numpy(gpu_device: Device) -> None:
    layer = EmbeddingConfig(2, 3).init(WIDE)
    with pytest.raises(IndexRangeError, match="expected indices from -2 to 1, got 2"):
        layer.forward(tensor([1, 2], WIDE))
    model = layer.to_device(gpu_device.autodiff())
    out = model.forward(tensor([1, 2, -1], model.device))
    np.testing.assert_array_equal(np.isnan(out.numpy()), [[False] * 3, [True] * 3, [False] * 3])
    np.testing.assert_array_equal(out.sum().backward()[model.weight.value].numpy(), [[0] * 3, [2] * 3])


def test_the_vectors_are_standard_normal_unless_another_initialiser_is_named() -> None:
    w = EmbeddingConfig(300, 200).init(WIDE).weight.value.numpy()
    assert w.std() == pytest.approx(1, rel=0.02) and w.mean() == pytest.approx(0, abs=0.02)
    assert (EmbeddingConfig(2, 2, initializer=Constant(0.5)).init(WIDE).weight.value.numpy() == 0.5).all()
    assert repr(EmbeddingConfig(5, 3).init(WIDE)) == "Embedding(5 -> 3)  # 15 parameters"


def test_floats_and_empty_tables_are_refused() -> None:
    with pytest.raises(KindError, match=r"embedding: expected an Int tensor, got a Float one; convert it"):
        EmbeddingConfig(5, 3).init(WIDE).forward(tensor([1.0], WIDE))
    for sizes in ((0, 3), (3, 0)):
        with pytest.raises(ConfigError, match="greater than 0"):
            EmbeddingConfig(*sizes)
