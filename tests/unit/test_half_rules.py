"""Half precision without a GPU: which element type results have, how tensors come to it and leave it, records, training."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import wgpu_nn.nn as layers
from wgpu_nn import (
    Device,
    Float,
    Int,
    Tensor,
    arange,
    bernoulli,
    cat,
    float16,
    float32,
    full,
    ones,
    rand,
    randn,
    tensor,
    where,
    zeros,
    zeros_like,
)
from wgpu_nn.dtype import F64
from wgpu_nn.errors import DeviceError, KindError
from wgpu_nn.nn import Param
from wgpu_nn.optim import AdamConfig, SgdConfig
from wgpu_nn.record import load_module, save_module
from wgpu_nn.record.tensors import load_tensors, save_tensors
from wgpu_nn.train import LossScale, working_copy

CPU = Device("numpy")


def half(values: object, device: Device = CPU) -> Tensor:
    return tensor(values, device, dtype=float16)


def test_halves_beside_numbers_stay_halves_and_beside_floats_become_floats() -> None:
    x, y = half([1.0, 2.0]), tensor([1.0, 2.0], CPU)
    assert (x + 1.5).dtype == (2.0 * x).dtype == (x + x).dtype == (x**2).dtype == float16
    assert (x + y).dtype == (y / x).dtype == where(x > 1.0, y, x).dtype == cat([x, y]).dtype == float32
    assert (x.reshape(1, 2) @ y.reshape(2, 1)).dtype == float32
    assert (half([1.0], Device("numpy:f64")) + tensor([1.0], Device("numpy:f64"))).dtype == F64


def test_a_tensor_of_rank_0_counts_as_a_number_beside_others() -> None:
    assert (half([1.0, 2.0]) * tensor(0.5, CPU)).dtype == float16
    assert (tensor([1.0], CPU) * half(0.5)).dtype == float32
    assert (half(1.0) * tensor(0.5, CPU)).dtype == float32


def test_comparisons_indices_and_counts_have_their_own_kinds() -> None:
    x = half([3.0, 1.0])
    assert (x < 2.0).tolist() == [False, True] and x.argmin().dtype == arange(1, device=CPU).dtype
    assert x.int().kind is Int and x.sum().dtype == x.mean().dtype == x.max().dtype == float16


def test_halves_and_ints_do_not_mix() -> None:
    with pytest.raises(KindError, match="Float and Int never mix"):
        _ = half([1.0]) + tensor([1], CPU)


def test_tensors_come_to_halves_and_back() -> None:
    x = tensor([0.1, 70000.0, 1e-9], CPU)
    want = np.array([0.1, np.inf, 0], np.float16)
    for y in (x.half(), x.to(float16), x.cast(float16)):
        assert y.dtype == float16
        np.testing.assert_array_equal(y.numpy(), want)
    assert x.half().float().dtype == x.half().to(float32).dtype == float32
    assert tensor(want, CPU).dtype == float16 and tensor(want, CPU).numpy().dtype == np.float16
    assert tensor(want, CPU, dtype=float32).dtype == float32
    assert tensor(tensor([1.5], CPU), CPU, dtype=float16).dtype == float16
    assert "dtype=f16" in repr(half([0.5]))


def test_creation_takes_an_element_type() -> None:
    for made in (zeros((2,), CPU, dtype=float16), ones((2,), CPU, dtype=float16), full((2,), 3, CPU, dtype=float16),
                 rand((2,), CPU, dtype=float16), randn((2,), CPU, dtype=float16)):  # fmt: skip
        assert made.dtype == float16
    assert zeros_like(half([1.0])).dtype == float16
    with pytest.raises(KindError, match="expected f32 or f16"):
        zeros((2,), CPU, dtype=F64)


def test_uniform_halves_stay_below_one() -> None:
    x = rand((200_000,), CPU, dtype=float16).numpy().astype(np.float64)
    assert x.min() >= 0 and x.max() < 1
    np.testing.assert_allclose(x.mean(), 0.5, atol=5 * 0.29 / 200_000**0.5 + 2**-12)  # and half a step of 2^-11


def test_a_device_may_make_halves_by_default_and_is_the_same_place() -> None:
    device = Device("numpy", float_dtype=float16)
    assert zeros((2,), device).dtype == randn((2,), device).dtype == tensor([1.0], device).dtype == float16
    assert arange(2, device=device).float().dtype == float32
    assert layers.LinearConfig(d_input=2, d_output=3).init(device).weight.value.dtype == float16
    assert (zeros((2,), device) + zeros((2,), CPU)).dtype == float32
    assert device.autodiff().inner().dtype(Float) == float16 and device == CPU and repr(device) == "Device(numpy, f16)"
    assert bernoulli((4,), 1.0, device).all().item()
    with pytest.raises(DeviceError, match="float_dtype"):
        Device("numpy", float_dtype=F64)


def test_a_device_in_double_precision_takes_halves_as_such_only_when_told() -> None:
    double = Device("numpy:f64")
    assert half([1.5]).to(double).dtype == tensor(np.ones(2, np.float16), double).dtype == F64
    assert half([1.5], double).dtype == float16


def test_results_are_rounded_once_from_f32() -> None:
    x = half([[0.1, 0.2, 0.3]] * 1000)
    assert x.sum(0).tolist() == [float(np.float16(1000 * float(np.float16(v)))) for v in (0.1, 0.2, 0.3)]


def test_gradients_have_the_element_type_of_what_they_belong_to() -> None:
    device = CPU.autodiff()
    x, w = half([1.0, 2.0], device).require_grad(), tensor([3.0, 4.0], device).require_grad()
    grads = (x * w).sum().backward()
    assert grads[x].dtype == float16 and grads[w].dtype == float32
    assert grads[x].tolist() == [3.0, 4.0] and grads[w].tolist() == [1.0, 2.0]


def test_the_norm_of_halves_does_not_overflow() -> None:
    x = half([300.0, 400.0], CPU.autodiff()).require_grad()
    grads = (x * x).sum().backward()
    assert grads.norm().item() == 1000.0
    clipped = grads.clip_norm(10.0)[x]
    assert clipped.dtype == float16 and clipped.tolist() == [6.0, 8.0]


def test_a_cell_keeps_its_element_type() -> None:
    p = Param(half([1.0, 2.0]))
    p.value = tensor([0.1, 0.2], CPU)
    assert p.value.dtype == float16 and p.value.tolist() == [float(np.float16(v)) for v in (0.1, 0.2)]


def test_a_module_in_halves_is_a_copy_with_its_ints_as_they_were() -> None:
    model = layers.LinearConfig(d_input=3, d_output=2).init(CPU)
    narrow = model.half()
    assert {p.value.dtype for p in narrow.params()} == {float16} and model.weight.value.dtype == float32
    assert narrow.float().weight.value.dtype == float32
    assert narrow.forward(half([[1.0, 2.0, 3.0]])).dtype == float16


def test_records_hold_halves_and_load_into_either(tmp_path: Path) -> None:
    model = layers.LinearConfig(d_input=3, d_output=2).init(CPU)
    path = tmp_path / "half.safetensors"
    save_module(model.half(), path)
    assert {a.dtype for a in load_tensors(path)[0].values()} == {np.dtype(np.float16)}
    wide, narrow = model.clone(), model.half()
    load_module(wide, path)
    load_module(narrow, path)
    assert wide.weight.value.dtype == float32 and narrow.weight.value.dtype == float16
    np.testing.assert_array_equal(wide.weight.value.numpy(), narrow.weight.value.numpy().astype(np.float32))
    save_tensors(path, {"x": np.arange(3, dtype=np.float16)})
    np.testing.assert_array_equal(load_tensors(path)[0]["x"], np.arange(3, dtype=np.float16))


def test_an_optimizer_keeps_its_state_of_halves_in_f32() -> None:
    device = CPU.autodiff()
    model = layers.LinearConfig(d_input=3, d_output=2).init(device).half()
    optimizer = AdamConfig().init()
    # The square of 1e-4 is no half; in one the step would be infinite.
    grads = (model.forward(half([[1e-4, 1.0, 1.0]], device)) * 1.0).sum().backward()
    before = model.weight.value.numpy()
    optimizer.step(model, grads)
    assert {c.value.dtype for c in optimizer.cells()} == {float32} and model.weight.value.dtype == float16
    np.testing.assert_allclose(before - model.weight.value.numpy(), 1e-3, atol=5e-4)  # half a unit of weights below 1


# --- mixed precision ---------------------------------------------------------------------------------------------------
def _model() -> tuple[Device, layers.Linear]:
    device = CPU.autodiff()
    device.seed(2)
    return device, layers.LinearConfig(d_input=4, d_output=1, bias=False).init(device)


def test_gradients_flow_through_a_working_copy_to_the_model() -> None:
    device, model = _model()
    out = working_copy(model).forward(half(np.ones((2, 4)), device))
    assert out.dtype == float16
    grads = out.float().sum().backward()
    assert grads[model.weight.value].dtype == float32
    np.testing.assert_array_equal(grads[model.weight.value].numpy(), np.full(model.weight.shape, 2.0))


def test_a_working_copy_shares_what_is_not_trained() -> None:
    norm = layers.BatchNormConfig(num_features=3).init(CPU.autodiff())
    copy = working_copy(norm)
    copy.forward(half(np.random.default_rng(0).normal(5, 1, (64, 3)), CPU.autodiff()))
    assert copy.running_mean is norm.running_mean and norm.running_mean.value.dtype == float32
    np.testing.assert_allclose(norm.running_mean.value.numpy(), 0.5, atol=0.05)


def test_small_steps_are_not_lost_in_a_working_copy() -> None:
    device, model = _model()
    start = model.weight.value.numpy()
    optimizer, scale = SgdConfig(lr=1e-5).init(), LossScale(device)
    for _ in range(10):
        out = working_copy(model).forward(half(np.ones((1, 4)), device))
        scale.step(optimizer, model, scale.scaled(out.float().sum()).backward())
    # Ten roundings of f32 weights below 1; in halves nothing would have moved.
    np.testing.assert_allclose(start - model.weight.value.numpy(), 1e-4, 0, 10 * 2.0**-25)


def test_a_loss_scale_saves_gradients_that_halves_would_lose() -> None:
    device, model = _model()

    def gradient(factor: float) -> float:
        cost = working_copy(model).forward(half(np.full((1, 4), 1.0), device)).float().sum() * 1e-9
        return float((cost * factor).backward()[model.weight.value].numpy().max()) / factor

    assert gradient(1.0) == 0.0
    np.testing.assert_allclose(gradient(2.0**15), 1e-9, rtol=2e-3)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_that_overflows_changes_nothing_but_the_scale(momentum: float) -> None:
    device, model = _model()
    optimizer, scale = SgdConfig(lr=0.1, momentum=momentum).init(), LossScale(device, initial=1024.0, interval=2)
    x = tensor(np.ones((1, 4)), device)

    def step(weight: float) -> bool:
        cost = model.forward(x).sum() * weight
        return bool(scale.step(optimizer, model, scale.scaled(cost).backward()).item())

    assert not step(float("inf")) and scale.value.item() == 512.0
    fresh = {name: t.numpy() for name, t in optimizer.state().items()}
    assert all((t == 0).all() for t in fresh.values())
    assert step(1.0) and scale.value.item() == 512.0
    weights, state = model.weight.value.numpy(), {name: t.numpy() for name, t in optimizer.state().items()}
    assert not step(float("nan")) and scale.value.item() == 256.0
    np.testing.assert_array_equal(model.weight.value.numpy(), weights)
    for name, t in optimizer.state().items():
        np.testing.assert_array_equal(t.numpy(), state[name])
    assert step(1.0) and step(1.0) and scale.value.item() == 512.0
    assert step(1.0) and scale.value.item() == 512.0 and not np.array_equal(model.weight.value.numpy(), weights)


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (layers.LinearConfig(8, 5), (3, 8)),
        (layers.Conv2dConfig([4, 6], [3, 3]), (2, 4, 9, 8)),
        (layers.ConvTranspose2dConfig([4, 6], [3, 3]), (2, 4, 9, 8)),
        (layers.BatchNormConfig(4), (2, 4, 9, 8)),
        (layers.LayerNormConfig(8), (2, 4, 9, 8)),
        (layers.GroupNormConfig(2, 4), (2, 4, 9, 8)),
        (layers.DropoutConfig(0.5), (2, 4)),
        (layers.MaxPool2dConfig([2, 2]), (2, 4, 9, 8)),
        (layers.AvgPool2dConfig([2, 2]), (2, 4, 9, 8)),
        (layers.Interpolate2dConfig(output_size=(5, 7), mode="linear"), (2, 4, 9, 8)),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, layers.Config) else "",
)
def test_layers_in_halves_give_halves(config: Any, shape: tuple[int, ...]) -> None:
    device = CPU.autodiff()
    layer = (
        config.init()
        if not any(p == "device" for p in inspect.signature(config.init).parameters)
        else config.init(device)
    )
    x = randn(shape, device, dtype=float16)
    narrow = layer.half()
    out = narrow.forward(x)
    assert out.dtype == float16
    if not isinstance(config, layers.DropoutConfig):
        want = narrow.float().forward(x.float()).numpy()
        # Weights and inputs are the same; what lies between is rounded a few times.
        np.testing.assert_allclose(out.float().numpy(), want, 8 * 2.0**-11, 4 * 2.0**-11 * np.abs(want).max())


def test_attention_of_halves_is_one_of_halves_with_gradients_of_halves() -> None:
    device = CPU.autodiff()
    q, k, v = (randn((1, 2, 5, 4), device, dtype=float16).require_grad() for _ in range(3))
    out = layers.scaled_dot_product_attention(q, k, v, causal=True)
    grads = out.sum().backward()
    assert out.dtype == grads[q].dtype == grads[k].dtype == grads[v].dtype == float16
