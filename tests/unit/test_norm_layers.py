"""Normalisation layers against their formulas in NumPy: in training and at rest, cloned, frozen, saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wgpu_nn import Device, Tensor, tensor
from wgpu_nn.errors import ConfigError, ShapeError
from wgpu_nn.nn import (
    BatchNorm,
    BatchNormConfig,
    GroupNormConfig,
    InstanceNormConfig,
    LayerNormConfig,
    Module,
    RmsNormConfig,
)
from wgpu_nn.record import load_module, save_module

WIDE = Device("numpy:f64")
RANKS = [(6, 3), (5, 3, 4), (2, 3, 4, 5), (2, 3, 2, 3, 2)]


def given(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape) * 2 + 3


def drawn(layer: Any) -> Any:
    """Return ``layer`` with parameters that are neither 0 nor 1."""
    for n, p in enumerate(layer.params()):
        p.value = tensor(np.random.default_rng(n).uniform(0.5, 2, p.shape), p.device)
    return layer


def column(v: np.ndarray, rank: int) -> np.ndarray:
    return v.reshape(-1, *(1 for _ in range(rank - 2)))


@pytest.mark.parametrize("shape", RANKS, ids=str)
def test_batch_norm_in_training_uses_the_batch_and_moves_the_running_statistics(shape: tuple[int, ...]) -> None:
    layer = drawn(BatchNormConfig(3, momentum=0.25, epsilon=0.01).init(WIDE.autodiff()))
    before = {k: t.numpy() for k, t in layer.state().items()}
    x = given(*shape)
    axes = (0, *range(2, len(shape)))
    mean, var, unbiased = np.mean(x, axes), np.var(x, axes), np.var(x, axes, ddof=1)
    got = layer.forward(tensor(x, WIDE.autodiff())).numpy()
    z = (x - column(mean, x.ndim)) / np.sqrt(column(var, x.ndim) + 0.01)
    np.testing.assert_allclose(got, z * column(before["gamma"], x.ndim) + column(before["beta"], x.ndim), rtol=1e-10)
    after = {k: t.numpy() for k, t in layer.state().items()}
    np.testing.assert_allclose(after["running_mean"], 0.75 * before["running_mean"] + 0.25 * mean)
    np.testing.assert_allclose(after["running_var"], 0.75 * before["running_var"] + 0.25 * unbiased)


@pytest.mark.parametrize("shape", RANKS, ids=str)
def test_batch_norm_at_rest_uses_the_running_statistics_and_leaves_them(shape: tuple[int, ...]) -> None:
    layer = drawn(BatchNormConfig(3).init(WIDE.autodiff())).valid()
    x = given(*shape)
    state = {k: column(t.numpy(), x.ndim) for k, t in layer.state().items()}
    got = layer.forward(tensor(x, WIDE)).numpy()
    z = (x - state["running_mean"]) / np.sqrt(state["running_var"] + 1e-5)
    np.testing.assert_allclose(got, z * state["gamma"] + state["beta"], rtol=1e-10)
    for k, t in layer.state().items():
        np.testing.assert_array_equal(t.numpy(), state[k].ravel())


def test_batch_norm_refuses_a_batch_of_one_and_other_channels() -> None:
    layer = BatchNormConfig(3).init(WIDE.autodiff())
    with pytest.raises(ShapeError, match=r"batch_norm: expected more than one element per channel in training"):
        layer.forward(tensor(given(1, 3), WIDE.autodiff()))
    with pytest.raises(ShapeError, match=r"expected an input \[batch, 3, ...\], got \[2, 4\]"):
        layer.forward(tensor(given(2, 4), WIDE.autodiff()))
    assert layer.valid().forward(tensor(given(1, 3), WIDE)).shape == (1, 3)


def test_running_statistics_are_no_trained_parameters_and_hold_no_history() -> None:
    layer = BatchNormConfig(3).init(WIDE.autodiff())
    assert layer.num_params() == 6 and [p.trainable for p in layer.params()] == [True, True, False, False]
    x = tensor(given(4, 3), WIDE.autodiff()).require_grad()
    grads = layer.forward(x).sum().backward()
    assert grads.get(layer.gamma.value) is not None and grads.get(layer.running_mean.value) is None
    assert layer.running_mean.value.handle.node is None and layer.running_var.value.handle.node is None


def test_a_clone_has_running_statistics_of_its_own_and_a_record_has_them_too(tmp_path: Path) -> None:
    layer = BatchNormConfig(3).init(WIDE.autodiff())
    copy = layer.clone()
    layer.forward(tensor(given(8, 3), WIDE.autodiff()))
    assert (copy.running_var.value.numpy() == 1).all() and (layer.running_var.value.numpy() != 1).all()
    save_module(layer, tmp_path / "bn.safetensors")
    load_module(copy, tmp_path / "bn.safetensors")
    for name, t in layer.state().items():
        np.testing.assert_allclose(copy.state()[name].numpy(), t.numpy(), rtol=1e-7)  # it is loaded as f32
    assert isinstance(layer.freeze(), BatchNorm) and layer.freeze().num_params() == 0


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (0, 4)], ids=str)
def test_layer_norm_and_rms_norm_normalise_the_last_axis(shape: tuple[int, ...], bias: bool) -> None:
    x = given(*shape)
    layer = drawn(LayerNormConfig(4, bias=bias, epsilon=0.1).init(WIDE))
    beta = layer.beta.value.numpy() if bias else 0
    z = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.1)
    np.testing.assert_allclose(layer.forward(tensor(x, WIDE)).numpy(), z * layer.gamma.value.numpy() + beta)
    rms = drawn(RmsNormConfig(4, epsilon=0.1).init(WIDE))
    want = x / np.sqrt((x * x).mean(-1, keepdims=True) + 0.1) * rms.gamma.value.numpy()
    np.testing.assert_allclose(rms.forward(tensor(x, WIDE)).numpy(), want)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    ("groups", "shape"), [(1, (3, 6)), (2, (3, 6, 5)), (3, (2, 6, 4, 5)), (6, (2, 6, 3)), (2, (0, 6, 3))]
)
def test_group_norm_normalises_groups_of_channels(groups: int, shape: tuple[int, ...], affine: bool) -> None:
    layer = drawn(GroupNormConfig(groups, 6, epsilon=0.1, affine=affine).init(WIDE))
    x = given(*shape)
    grouped = x.reshape(shape[0], groups, x[:1].size // groups if x.size else 9)
    z = (grouped - grouped.mean(-1, keepdims=True)) / np.sqrt(grouped.var(-1, keepdims=True) + 0.1)
    want = z.reshape(shape)
    if affine:
        want = want * column(layer.gamma.value.numpy(), x.ndim) + column(layer.beta.value.numpy(), x.ndim)
    np.testing.assert_allclose(layer.forward(tensor(x, WIDE)).numpy(), want)


def test_instance_norm_is_group_norm_with_a_group_per_channel() -> None:
    x = tensor(given(2, 3, 4, 5), WIDE)
    one, other = InstanceNormConfig(3).init(WIDE), GroupNormConfig(3, 3).init(WIDE)
    np.testing.assert_array_equal(one.forward(x).numpy(), other.forward(x).numpy())
    assert not InstanceNormConfig(3, affine=False).init(WIDE).params()


def test_configs_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="divisible by the groups, got 5 in 2"):
        GroupNormConfig(2, 5).init(WIDE)
    with pytest.raises(ConfigError):
        BatchNormConfig(3, momentum=1.5)
    with pytest.raises(ShapeError, match="expected a weight beside the bias"):
        tensor(given(2, 3), WIDE).layer_norm(bias=tensor(given(3), WIDE))
    with pytest.raises(ShapeError, match=r"layer_norm: expected weights of the shape \[3\]"):
        LayerNormConfig(4).init(WIDE).forward(tensor(given(2, 3), WIDE))


LAYERS: dict[str, Any] = {
    "batch": BatchNormConfig(4),
    "layer": LayerNormConfig(6),
    "rms": RmsNormConfig(6),
    "group": GroupNormConfig(2, 4),
    "instance": InstanceNormConfig(4),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_gradients_of_a_layer_are_slopes(name: str) -> None:
    device = WIDE.autodiff()
    layer: Module = drawn(LAYERS[name].init(device))
    x, weights = given(3, 4, 6), given(3, 4, 6, seed=1)

    def loss(at: np.ndarray) -> Tensor:
        return (cast_layer(layer).forward(tensor(at, device).require_grad()) * tensor(weights, device)).sum()

    leaf = tensor(x, device).require_grad()
    grads = (cast_layer(layer).forward(leaf) * tensor(weights, device)).sum().backward()
    d = given(*x.shape, seed=2)
    slope = (float(loss(x + 1e-5 * d)) - float(loss(x - 1e-5 * d))) / 2e-5
    np.testing.assert_allclose((grads[leaf].numpy() * d).sum(), slope, rtol=1e-6)
    for p in layer.params():
        if not p.trainable:
            continue
        start, d = p.value.detach(), given(*p.shape, seed=3)
        g = grads[p.value].numpy()
        ends: list[float] = []
        for sign in (1, -1):
            p.value = start + tensor(sign * 1e-5 * d, device)
            ends.append(float(loss(x)))
        p.value = start
        np.testing.assert_allclose((g * d).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-6)


def cast_layer(layer: Module) -> Any:
    return layer
