"""Half precision on a GPU: every op of the table on halves, what lies at odd places, special values, gradients, capture."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import wgpu_nn.nn as layers
from tests.case import VIEWS, Arg, Case, f32
from tests.cases import TABLE
from wgpu_nn import Device, Int, Tensor, arange, cat, float16, float32, randn, switches, tensor, where, zeros
from wgpu_nn.backends.base import Backend, Handle
from wgpu_nn.backends.wgpu import Wgpu, target_of
from wgpu_nn.dtype import DType, Float, Kind
from wgpu_nn.nn import Module
from wgpu_nn.ops import OPS, Category
from wgpu_nn.optim import AdamConfig
from wgpu_nn.train import LossScale, capture, working_copy

HALF = 2.0**-11  # half a unit in the last place of 1: what one rounding to f16 is off by, relative to the result
LEAST = 2.0**-25  # half of the smallest f16


def f16(values: Any) -> np.ndarray:
    return np.array(values, np.float16)


def _floats(case: Case) -> bool:
    return any(isinstance(a, Arg) and a.kind is Float for a in case.args) and case.op != "places"


@pytest.fixture(params=["f16", "words"])
def any_storage(request: pytest.FixtureRequest, gpu_device: Device) -> Device:
    """The adapter with WGSL's f16, and as one that lacks it."""
    if request.param == "f16" and "shader-f16" not in gpu_device.gpu.features:
        pytest.skip("this device has no f16 in WGSL")
    target = replace(target_of(gpu_device.gpu), halves=request.param == "f16")
    return Device.of(Wgpu(gpu_device.gpu, target))


def _device(variant: str, gpu_variants: dict[str, Device]) -> Device:
    if variant != "words":
        return gpu_variants[variant]
    backend = gpu_variants["software"].root
    assert isinstance(backend, Wgpu)
    return Device.of(Wgpu(backend.gpu, replace(backend.target, halves=False)))


def _some() -> list[tuple[str, Case]]:
    """Return for each op its first, its last and its middle case with Floats; GPUs' kernels differ for routines only."""
    found: list[tuple[str, Case]] = []
    for op, rows in TABLE.items():
        cases = [c for c in rows if _floats(c)]
        some = {c.name: c for c in (cases[:1] + cases[-1:] + cases[len(cases) // 2 :][:1])}
        found += [("software", c) for c in some.values()]
        if OPS[op].category in (Category.REDUCE, Category.ROUTINE):
            found += [("gpu", c) for c in some.values()]
            found += [("words", c) for c in cases[-1:]]
    return found


def _run(case: Case, backend: Backend, floats: DType, halves: list[Any]) -> tuple[np.ndarray, DType]:
    given: list[Handle] = []
    for a, x in zip(case.args, halves, strict=True):
        if not isinstance(a, Arg):
            given.append(x)
            continue
        handle = backend.upload(x, floats if a.kind is Float else backend.dtypes[a.kind])
        for op, attrs in VIEWS[a.view](a.shape)[1]:
            handle = backend.run(op, handle, **attrs)
        given.append(handle)
    attrs = {
        k: floats if v is Float else backend.dtypes[v] if isinstance(v, Kind) else v for k, v in case.attrs.items()
    }
    out = backend.run(case.op, *given, **attrs)
    return backend.download(out), backend.spec(out).dtype


@pytest.mark.parametrize(("variant", "case"), _some(), ids=lambda v: v.name if isinstance(v, Case) else v)
def test_an_op_on_halves_is_its_f32_result_rounded_once(
    variant: str, case: Case, gpu_variants: dict[str, Device], exact: Device
) -> None:
    drawn = case.draw()
    with np.errstate(over="ignore"):
        halves = [
            x.astype(np.float16) if isinstance(a, Arg) and a.kind is Float else x
            for a, x in zip(case.args, drawn, strict=True)
        ]
    got, dtype = _run(case, _device(variant, gpu_variants).backend, float16, halves)
    want, _ = _run(case, exact.backend, exact.dtype(Float), halves)
    if dtype.kind is not Float:
        np.testing.assert_array_equal(got, want)
        return
    # Log-sum-exps lie behind the results of attention; they are not rounded.
    assert dtype == (float32 if case.op == "attention" else float16)
    allowed = case.tolerance
    np.testing.assert_allclose(
        got.astype(np.float64), want, allowed.relative + HALF, allowed.absolute + LEAST, err_msg=allowed.why
    )


@pytest.mark.unwatched("widens NaN, which the watch does not see in halves", "nan", "inf")
def test_every_half_widens_exactly_and_comes_back(any_storage: Device) -> None:
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    x = tensor(every, any_storage)
    np.testing.assert_array_equal(x.numpy(), every)
    np.testing.assert_array_equal(x.float().numpy(), every.astype(np.float32))
    np.testing.assert_array_equal(x.float().half().numpy(), every)


def test_rounding_is_to_the_nearest_even_and_what_is_too_large_becomes_infinite(any_storage: Device) -> None:
    given = np.array([2049, 2051, 65504, 65519, 65520, -1e6, np.inf, np.nan, 6e-8, 2.9e-8, -0.0, 5.97e-5], np.float32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(tensor(given, any_storage).half().numpy(), given.astype(np.float16))


def test_special_values_go_through_maps_and_reductions(any_storage: Device) -> None:
    x = tensor(np.array([1, np.nan, np.inf, -np.inf, 65504], np.float16), any_storage)
    np.testing.assert_array_equal((x + x).numpy(), np.array([2, np.nan, np.inf, -np.inf, np.inf], np.float16))
    np.testing.assert_array_equal(x.is_nan().numpy(), [False, True, False, False, False])
    np.testing.assert_array_equal(x.relu().numpy(), np.array([1, np.nan, np.inf, 0, 65504], np.float16))
    assert np.isnan(x.max().item()) and x[2:].max().item() == np.inf


def test_a_sum_of_halves_is_kept_in_f32_until_it_is_stored(gpu_device: Device) -> None:
    # In halves a running sum of ones would stop at 2048.
    assert tensor(np.ones((2, 20000), np.float16), gpu_device).sum(1).tolist() == [20000.0, 20000.0]
    assert (tensor(np.full(3000, 60.0, np.float16), gpu_device).square()).mean().item() == 3600.0


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 129, 4099])
def test_sizes_that_fill_no_word_round_trip(n: int, any_storage: Device, rng: np.random.Generator) -> None:
    array = rng.normal(size=n).astype(np.float16)
    x = tensor(array, any_storage)
    np.testing.assert_array_equal(x.numpy(), array)
    np.testing.assert_array_equal((x * 2.0).numpy(), array * np.float16(2))
    np.testing.assert_array_equal(x.numpy_later().result(), array)


@pytest.mark.parametrize(("start", "count"), [*itertools.product((1, 2, 3, 5), (1, 2, 5, 8))])
def test_views_at_odd_places_are_read_and_written_exactly(
    start: int, count: int, any_storage: Device, rng: np.random.Generator
) -> None:
    array = rng.normal(size=17).astype(np.float16)
    x = tensor(array, any_storage)
    part = x[start : start + count]
    np.testing.assert_array_equal(part.numpy(), array[start : start + count])
    np.testing.assert_array_equal((part + part).numpy(), array[start : start + count] * 2)
    changed = array.copy()
    changed[start : start + count] = 7
    np.testing.assert_array_equal(x.set(slice(start, start + count), 7.0).numpy(), changed)
    np.testing.assert_array_equal(x.numpy(), array)


def test_neighbouring_halves_written_by_many_invocations_do_not_disturb_each_other(any_storage: Device) -> None:
    x = arange(3 * 1001, device=any_storage).reshape(3, 1001).cast(float16)
    joined = cat([x, x[:, :3], x], dim=1)
    want = np.arange(3 * 1001).reshape(3, 1001).astype(np.float16)
    np.testing.assert_array_equal(joined.numpy(), np.concatenate([want, want[:, :3], want], 1))
    np.testing.assert_array_equal(joined.transpose().sum(0).numpy(), joined.sum(1).numpy())


def test_halves_and_floats_mix_in_one_launch(gpu_device: Device) -> None:
    x, y = tensor(f16([1, 2, 3]), gpu_device), tensor(f32([0.1, 0.2, 0.3]), gpu_device)
    gpu_device.sync()
    before = gpu_device.gpu.counts.copy()
    out = x * y
    gpu_device.sync()
    assert gpu_device.gpu.counts.since(before).launches == 1 and out.dtype == float32
    np.testing.assert_array_equal(out.numpy(), f32([1, 2, 3]) * f32([0.1, 0.2, 0.3]))
    mixed = where(x > 1.5, x, y)
    assert mixed.dtype == float32 and mixed.tolist()[1:] == [2.0, 3.0]
    np.testing.assert_allclose((x.reshape(1, 3) @ y.reshape(3, 1)).numpy(), [[1.4]], 1e-6)


def test_halves_take_half_the_memory(gpu_device: Device) -> None:
    pool = gpu_device.gpu.pool
    wide, narrow = (zeros((1 << 18,), gpu_device, dtype=t).handle.buffer.nbytes for t in (float32, float16))
    assert (wide, narrow) == (1 << 20, 1 << 19) and pool.largest


def test_kernels_of_f32_know_nothing_of_halves(gpu_device: Device) -> None:
    x = randn((64, 64), gpu_device)
    (x @ x).softmax(1).numpy()
    plain = {k.code for k, _ in gpu_device.gpu.compiled() if not k.name.endswith("f16")}
    assert plain and not any("f16" in code for code in plain)


# --- gradients and capture ---------------------------------------------------------------------------------------------
class Layers(Module):
    parts: list[layers.Linear]


class Net(Module):
    conv: layers.Conv2d
    norm: layers.BatchNorm
    hidden: layers.Linear
    last: layers.Linear

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm.forward(self.conv.forward(x)).gelu().flatten(1)  # smooth: roundings flip no kink
        return self.last.forward(self.hidden.forward(h).gelu())


def _net(device: Device) -> Net:
    device.seed(3)
    return Net(
        conv=layers.Conv2dConfig(channels=(1, 5), kernel_size=(3, 3), bias=False).init(device),
        norm=layers.BatchNormConfig(num_features=5).init(device),
        hidden=layers.LinearConfig(d_input=45, d_output=17).init(device),
        last=layers.LinearConfig(d_input=17, d_output=3).init(device),
    )


def _batch(device: Device) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(5)
    return tensor(rng.normal(size=(32, 1, 5, 5)).astype(np.float32), device), tensor(rng.integers(0, 3, 32), device)


def test_gradients_of_halves_are_halves_and_near_those_of_floats(gpu_device: Device) -> None:
    device = gpu_device.autodiff()
    x, y = _batch(device)
    loss = layers.CrossEntropyLossConfig().init()
    wide = _net(device)
    narrow = wide.half()
    of_wide = loss.forward(wide.forward(x), y).backward()
    of_narrow = loss.forward(narrow.forward(x.half()).float(), y).backward()
    for (name, p), (_, q) in zip(wide.named_params(), narrow.named_params(), strict=True):
        if p.trainable:
            want, got = of_wide[p.value], of_narrow[q.value]
            assert got.dtype == float16, name
            # A dozen roundings of 2^-11 lie between a loss and the first layer; of the largest, as others cancel.
            scale = np.abs(want.numpy()).max() + 1e-3
            np.testing.assert_allclose(got.float().numpy() / scale, want.numpy() / scale, 0, 12 * HALF, err_msg=name)


def _losses(device: Device, mode: str, captured: bool) -> tuple[list[float], Net, LossScale]:
    device = device.autodiff()
    net = _net(device) if mode != "half" else _net(device).half()
    x, y = _batch(device)
    optimizer, loss, scale = (
        AdamConfig(lr=3e-2).init(),
        layers.CrossEntropyLossConfig().init(),
        LossScale(device, interval=4),
    )

    def step(x: Tensor, y: Tensor) -> Tensor:
        if mode == "mixed":
            cost = loss.forward(working_copy(net).forward(x.half()).float(), y)
            scale.step(optimizer, net, scale.scaled(cost).backward())
        else:
            cost = loss.forward(net.forward(x if mode == "float" else x.half()).float(), y)
            optimizer.step(net, cost.backward())
        return cost.inner()

    run: Callable[[Tensor, Tensor], Tensor] = step
    if captured:
        run = capture(state=[net, optimizer, *scale.cells()])(step)
    return [float(run(x, y).item()) for _ in range(9)], net, scale


@pytest.mark.parametrize("mode", ["half", "mixed"])
def test_training_in_halves_follows_that_in_floats(mode: str, gpu_device: Device, cpu: Device) -> None:
    want, _, _ = _losses(cpu, "float", False)
    eager, net, scale = _losses(gpu_device, mode, False)
    captured, same, _ = _losses(gpu_device, mode, True)
    assert want[-1] < want[0] / 2
    # Weights rounded to 2^-11 move the loss by as little; what a step adds differs by as much again.
    np.testing.assert_allclose(eager, want, 2e-2)
    np.testing.assert_allclose(captured, eager, 1e-2)
    stored = float16 if mode == "half" else float32
    assert {p.value.dtype for m in (net, same) for p in m.params()} == {stored}
    assert scale.value.item() == (2.0**15 if mode == "half" else 2.0**17)


def test_a_captured_step_that_overflows_changes_nothing_but_the_scale(gpu_device: Device) -> None:
    device = gpu_device.autodiff()
    model = layers.LinearConfig(d_input=3, d_output=2).init(device)
    optimizer, scale = AdamConfig(lr=0.1).init(), LossScale(device, initial=64.0, interval=3)

    @capture(state=[model, optimizer, *scale.cells()])
    def step(x: Tensor) -> Tensor:
        cost = working_copy(model).forward(x.half()).float().sum()
        return scale.step(optimizer, model, scale.scaled(cost).backward())

    good, bad = (tensor([[1.0, 2.0, v]], device) for v in (3.0, float("inf")))
    assert step(good).item() and step(good).item()
    cells = [*model.params(), *optimizer.cells()]
    before = [c.value.numpy() for c in cells]
    assert not step(bad).item() and scale.value.item() == 32.0
    for cell, old in zip(cells, before, strict=True):
        np.testing.assert_array_equal(cell.value.numpy(), old)
    assert step(good).item() and not np.array_equal(cells[0].value.numpy(), before[0])


def test_an_optimizer_updates_all_halves_in_one_launch(gpu_device: Device) -> None:
    device = gpu_device.autodiff()

    def launches(dtype: Any, width: int) -> int:
        model = [layers.LinearConfig(d_input=3, d_output=n).init(device).to_dtype(dtype) for n in range(2, 2 + width)]
        tree = Layers(model)
        optimizer, x = AdamConfig().init(), tensor(np.ones((4, 3)), device, dtype=dtype)

        def step(x: Tensor) -> None:
            total = model[0].forward(x).float().sum()
            for layer in model[1:]:
                total = total + layer.forward(x).float().sum()
            optimizer.step(tree, total.backward())

        run = capture(state=[tree, optimizer])(step)
        run(x)
        run(x)
        device.sync()
        before = device.gpu.counts.copy()
        run(x)
        device.sync()
        return device.gpu.counts.since(before).launches

    # Three more layers cost what they cost in f32: none of it is the optimizer's.
    assert launches(float16, 5) - launches(float16, 2) == launches(float32, 5) - launches(float32, 2)


def test_a_captured_chain_rounds_where_it_stores_and_where_it_is_told_to(any_storage: Device) -> None:
    @capture
    def chain(x: Tensor) -> tuple[Tensor, Tensor]:
        return (x * 3.0 + 1.0) / 3.0, (x.float() + 1e-4).half().float() * 2.0

    array = np.linspace(-3, 3, 33).astype(np.float16)
    stored, told = (t.numpy() for t in chain(tensor(array, any_storage)))
    exact = (array.astype(np.float64) * 3 + 1) / 3
    np.testing.assert_allclose(stored, exact, HALF, 1e-6)
    np.testing.assert_array_equal(
        told, (array.astype(np.float32) + np.float32(1e-4)).astype(np.float16) * np.float32(2)
    )


def test_captured_state_of_odd_sizes_lies_side_by_side(any_storage: Device) -> None:
    a, b = (layers.Param(tensor(np.arange(n, dtype=np.float16), any_storage)) for n in (3, 130))

    @capture(state=[a, b])
    def step() -> None:
        for p in (a, b):
            p.value = p.value * 2.0 + 1.0

    for _ in range(3):
        step()
    for p, n in ((a, 3), (b, 130)):
        np.testing.assert_array_equal(p.value.numpy(), np.arange(n, dtype=np.float16) * 8 + 7)


def test_an_odd_slice_is_an_argument_and_a_result_of_a_captured_function(any_storage: Device) -> None:
    @capture
    def parts(x: Tensor) -> tuple[Tensor, Tensor]:
        return x[1:4], (x + 1.0)[2:3]

    array = np.arange(9, dtype=np.float16)
    first, second = parts(tensor(array, any_storage)[1:8])
    assert first.tolist() == [2.0, 3.0, 4.0] and second.tolist() == [4.0]


# --- sums in halves ----------------------------------------------------------------------------------------------------
def test_large_products_are_summed_in_halves_on_request_only(
    gpu_variants: dict[str, Device], rng: np.random.Generator
) -> None:
    device = gpu_variants["gpu"]
    x, y = (rng.normal(size=s).astype(np.float16) for s in ((700, 64), (64, 1001)))
    want = x.astype(np.float64) @ y.astype(np.float64)

    def off(on: bool) -> float:
        with switches.half_sums.set(on):
            got = (tensor(x, device) @ tensor(y, device)).numpy()
        return float(np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2)))

    # One rounding at the end; or 64 on the way, which add up as their root: 8 times half of 2^-11.
    assert off(False) < HALF
    if "shader-f16" in device.gpu.features:
        assert HALF < off(True) < 8 * HALF
    else:
        assert off(True) == off(False), "there is nothing to add halves up in"


# --- kinds -------------------------------------------------------------------------------------------------------------
def test_indices_and_orders_of_halves_are_ints(any_storage: Device) -> None:
    x = tensor(f16([3, 1, 2, 1]), any_storage)
    assert x.argsort().tolist() == [1, 3, 2, 0] and x.argmax().item() == 0
    assert x.int().kind is Int and x.int().float().dtype == float32
