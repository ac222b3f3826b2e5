"""Captured functions: what a step costs, that it equals eager mode, and what may not be captured."""

from __future__ import annotations

import gc
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from wgpu_nn import Device, Tensor, bernoulli, ones, rand, switches, tensor
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.errors import CaptureError
from wgpu_nn.gpu import Gpu, choose
from wgpu_nn.models import Model, ModelConfig
from wgpu_nn.nn import CrossEntropyLossConfig, DropoutConfig, Linear, LinearConfig, Module
from wgpu_nn.optim import AdamConfig, AdamWConfig, Optimizer, SgdConfig
from wgpu_nn.tensor import Cell
from wgpu_nn.train.capture import capture

ROOT = Path(__file__).parents[2]
LOSS = CrossEntropyLossConfig().init()
OPTIMIZERS = {
    "sgd": SgdConfig(lr=0.05),
    "momentum": SgdConfig(lr=0.05, momentum=0.9, dampening=0.1, weight_decay=0.01),
    "nesterov": SgdConfig(lr=0.05, momentum=0.9, nesterov=True),
    "adam": AdamConfig(lr=0.01, eps=1e-4, weight_decay=0.01),
    "adamw": AdamWConfig(lr=0.01, eps=1e-4),
}


def batch(device: Device, n: int, side: int = 12) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(n)
    return tensor(rng.random((n, side, side), np.float32), device), tensor(rng.integers(0, 10, n), device)


def step_of(model: Model, optimizer: Optimizer, grads: Callable[[Tensor], Any] = Tensor.backward) -> Any:
    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = LOSS.forward(model.forward(x), y)
        optimizer.step(model, grads(loss))
        return loss.inner()

    return step


def train(device: Device, config: Any, fuse: bool | None, steps: int = 4, before: Any = None, grads: Any = None) -> Any:
    """Return what a run leaves: losses, then parameters and the optimizer's state; ``fuse`` None is eager."""
    device.seed(11)
    model, optimizer = ModelConfig(10, 16).init(device.autodiff()), config.init()
    step = step_of(model, optimizer, grads or Tensor.backward)
    if fuse is not None:
        step = capture(state=[model, optimizer, device], fuse=fuse)(step)
    out: list[np.ndarray] = []
    for n in range(steps):
        if before:
            before(n, optimizer)
        out.append(step(*batch(device.autodiff(), 6)).numpy())
    assert fuse is None or len(step.steps) == 1
    assert optimizer.steps == steps
    return [*out, *(t.numpy() for t in (*model.state().values(), *optimizer.state().values()))]


def agree(got: list[np.ndarray], want: list[np.ndarray], fuse: bool) -> None:
    for g, w in zip(got, want, strict=True):
        # A few roundings of 6e-8 a step; Adam's eps is large here, as small roots would blow them up.
        np.testing.assert_allclose(g, w, 1e-5 if fuse else 0, 3e-6 if fuse else 0)  # 1.4e-6 on an H100


# --- what it costs -----------------------------------------------------------------------------------------------------
def test_a_training_step_of_the_spec_pages_cnn_is_20_launches_and_one_submit(step_launches: int) -> None:
    device = Device.of(Wgpu(Gpu(choose()[0]))).autodiff()
    model, optimizer = ModelConfig(10, 512).init(device), AdamConfig().init()
    step = capture(state=[model, optimizer, device])(step_of(model, optimizer))
    x, y = batch(device, 64, 28)
    loss = step(x, y)
    loss = step(x, y)
    gc.collect()
    gpu = device.gpu
    before, pool = gpu.counts.copy(), gpu.pool.stats()
    for _ in range(5):
        loss = step(x, y)
    since = gpu.counts.since(before)
    assert step.steps[0].step.launches <= step_launches and since.launches <= 5 * step_launches
    assert since.submits == 5
    assert (since.pipelines, since.bind_groups, since.uploads, since.reads) == (0, 0, 0, 0)
    assert gpu.pool.stats().created == pool.created and gpu.pool.stats().live_bytes == pool.live_bytes
    assert np.isfinite(loss.item())


# --- that it equals eager mode -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("fuse", [False, True], ids=["plain", "fused"])
def test_a_captured_training_run_equals_an_eager_one(name: str, fuse: bool, gpu_device: Device) -> None:
    want = train(gpu_device, OPTIMIZERS[name], None)
    agree(train(gpu_device, OPTIMIZERS[name], fuse), want, fuse)


@pytest.mark.parametrize("fuse", [False, True], ids=["plain", "fused"])
def test_learning_rates_and_step_counts_may_change_between_calls(fuse: bool, gpu_device: Device) -> None:
    def warm(n: int, optimizer: Optimizer) -> None:
        optimizer.lr = 0.01 * (n + 1)

    want = train(gpu_device, OPTIMIZERS["adamw"], None, before=warm)
    agree(train(gpu_device, OPTIMIZERS["adamw"], fuse, before=warm), want, fuse)


@pytest.mark.parametrize("fuse", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("limit", [0.01, 100.0])
def test_clipping_by_norm_inside(fuse: bool, limit: float, gpu_device: Device) -> None:
    grads = lambda loss: loss.backward().clip_norm(limit)
    want = train(gpu_device, OPTIMIZERS["momentum"], None, grads=grads)
    agree(train(gpu_device, OPTIMIZERS["momentum"], fuse, grads=grads), want, fuse)


@pytest.mark.parametrize("fuse", [False, True], ids=["plain", "fused"])
def test_accumulation_of_two_backward_passes_inside(fuse: bool, gpu_device: Device) -> None:
    def run(captured: bool) -> list[np.ndarray]:
        gpu_device.seed(2)
        model, optimizer = ModelConfig(10, 16).init(gpu_device.autodiff()), AdamConfig(lr=0.01).init()

        def step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            first, second = (LOSS.forward(model.forward(x[k::2]), y[k::2]) for k in range(2))
            optimizer.step(model, first.backward() + second.backward())
            return first.inner(), second.inner()

        f = capture(state=[model, optimizer], fuse=fuse)(step) if captured else step
        out = [t.numpy() for _ in range(3) for t in f(*batch(gpu_device.autodiff(), 6))]
        return [*out, *(p.value.numpy() for p in model.params())]

    agree(run(True), run(False), fuse)


def test_dropout_draws_the_masks_of_eager_mode(gpu_device: Device) -> None:
    drop = DropoutConfig(0.5).init()
    x = ones((50,), gpu_device.autodiff())
    draws = lambda x: (drop.forward(x), bernoulli((9,), 0.3, gpu_device), rand(3, gpu_device))
    run = capture(state=[gpu_device])(draws)
    found: list[list[bytes]] = []
    for f in (draws, run):
        gpu_device.seed(9)
        found.append([t.numpy().tobytes() for _ in range(3) for t in f(x)])
    assert found[0] == found[1] and len(set(found[0])) == 9


def test_evaluation_inference_and_a_chain_of_ops(gpu_device: Device) -> None:
    model = ModelConfig(10, 16).init(gpu_device.autodiff()).valid()
    x, y = batch(gpu_device, 5)
    evaluate = lambda x, y: (LOSS.forward(model.forward(x), y), (model.forward(x).argmax(1) == y).int().sum())
    chain = lambda x: ((x * 2.0 - 1.0).tanh().sum(1) / 3.0).softmax(1)
    cases: list[tuple[Any, tuple[Tensor, ...]]] = [(evaluate, (x, y)), (model.forward, (x,)), (chain, (x,))]
    for f, args in cases:
        for fuse in (False, True):
            run = capture(fuse=fuse)(f)
            for _ in range(2):
                got, want = run(*args), f(*args)
                pairs = zip(got, want) if isinstance(got, tuple) else [(got, want)]
                for g, w in pairs:
                    agree([g.numpy()], [w.numpy()], fuse)


# --- signatures, results, devices --------------------------------------------------------------------------------------
class Point(NamedTuple):
    x: Any
    y: Any


def test_nested_arguments_and_results_keep_their_structure(gpu_device: Device) -> None:
    @capture
    def f(pair: tuple[Tensor, Tensor], *, scale: float, more: dict[str, Tensor]) -> dict[str, Any]:
        a, b = pair
        return {"point": Point(a * scale, [b, "name", None]), "twice": (a, a), "more": more["c"] + 1.0, "n": scale}

    a, b, c = (tensor(np.full(3, k, np.float32), gpu_device) for k in (1, 2, 3))
    for scale in (2.0, 4.0, 2.0):
        out = f((a, b), scale=scale, more={"c": c})
        assert isinstance(out["point"], Point) and out["point"].y[1:] == ["name", None] and out["n"] == scale
        assert [t.numpy()[0] for t in (out["point"].x, out["point"].y[0], *out["twice"], out["more"])] == [
            scale,
            2,
            1,
            1,
            4,
        ]
    assert len(f.steps) == 2


def test_arguments_that_python_holds_for_equal_are_other_signatures(gpu_device: Device) -> None:
    f = capture(lambda x, s: x / s if isinstance(s, float) else x * s)
    x = ones((4,), gpu_device)
    found = [f(x, s).numpy()[0] for s in (0.0, -0.0, 1, 1.0, 2)]
    assert found == [np.inf, -np.inf, 1, 1, 2] and len(f.steps) == 5
    with pytest.raises(CaptureError, match="hashable"):
        f(x, {1, 2})


def test_the_oldest_signature_goes_and_says_so(gpu_device: Device, caplog: pytest.LogCaptureFixture) -> None:
    f = capture(most=2)(lambda x: x + 1.0)
    with caplog.at_level(logging.INFO, "wgpu_nn.capture"):
        for n in (1, 2, 3, 1):
            assert f(ones((n,), gpu_device)).shape == (n,)
    assert len(f.steps) == 2 and caplog.text.count("the oldest step is dropped") == 2


def test_numpy_and_switched_off_capture_run_the_function(gpu_device: Device, cpu: Device) -> None:
    calls: list[int] = []
    f = capture(lambda x: (calls.append(1), x + 1.0)[1])
    for _ in range(2):
        f(ones((2,), cpu))
        with switches.capture.set(False):
            f(ones((2,), gpu_device))
    assert len(calls) == 4 and not f.steps


def test_fusion_and_checked_shaders_are_steps_of_their_own(gpu_device: Device) -> None:
    f = capture(lambda x: (x + 1.0) * 2.0)
    for checked in (False, True):
        for fusion in (False, True):
            with switches.checked_shaders.set(checked), switches.fusion.set(fusion):
                np.testing.assert_array_equal(f(ones((5,), gpu_device)).numpy(), 4.0)
                assert f.steps[-1].step.launches == (1 if fusion else 2)
    assert len(f.steps) == 4


def test_the_same_tensor_twice_arguments_and_constants_come_back(gpu_device: Device) -> None:
    constant = tensor(np.arange(6, dtype=np.float32).reshape(2, 3), gpu_device)
    want, x = constant.numpy(), ones((2, 3), gpu_device)
    for fuse in (False, True):
        f = capture(fuse=fuse)(lambda a, b: (a, b, a + b, a + constant, constant, constant.transpose(), constant[1:]))
        for _ in range(2):
            got = [t.numpy() for t in f(x, x)]
        for g, w in zip(got, (1 + 0 * want, 1 + 0 * want, 2 + 0 * want, 1 + want, want, want.T, want[1:]), strict=True):
            np.testing.assert_array_equal(g, w)


def test_a_constant_outlives_its_tensor_and_a_steps_writes(gpu_device: Device) -> None:
    cell = Cell(tensor(np.arange(5, dtype=np.float32), gpu_device))
    grow = capture(state=[cell])(lambda: setattr(cell, "value", cell.value + 1.0))
    grow()
    baked = [cell.value, cell.value[1:] * 1.5, cell.value.reshape(5, 1)]
    f = capture(lambda x: [x + t for t in baked])
    x = tensor(np.zeros((), np.float32), gpu_device)
    before = [t.numpy() for t in f(x)]
    baked.clear()
    gc.collect()
    for _ in range(2):
        grow()
        for got, want in zip(f(x), before, strict=True):
            np.testing.assert_array_equal(got.numpy(), want)


# --- what may not be captured ------------------------------------------------------------------------------------------
READS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x.sum().item(), "numpy": lambda x: x.numpy(), "bool": lambda x: bool(x.sum() > 0),
    "float": lambda x: float(x.sum()), "repr": lambda x: repr(x), "list": lambda x: x.tolist(),
}  # fmt: skip


@pytest.mark.parametrize("read", READS)
def test_reading_a_value_inside_names_the_line(read: str, gpu_device: Device) -> None:
    def f(x: Tensor) -> Tensor:
        READS[read](x * 2.0)
        return x

    line = f"{re.escape(__file__)}:\\d+"
    with pytest.raises(CaptureError, match=f"^read: .*{line}; return it"):
        capture(f)(ones((3,), gpu_device))


def test_a_value_that_escapes_is_refused(gpu_device: Device) -> None:
    box: list[Tensor] = []
    capture(lambda x: (box.append(x * 2.0), x)[1])(ones((3,), gpu_device))
    uses = (lambda: box[0] + 1.0, lambda: box[0].numpy(), lambda: capture(lambda x: x + box[0])(ones((3,), gpu_device)))
    for use in uses:
        with pytest.raises(CaptureError):
            use()


def test_unnamed_state_is_refused_and_untouched(gpu_device: Device) -> None:
    cell = Cell(ones((2, 3), gpu_device))
    f = capture(lambda x: setattr(cell, "value", cell.value + x))
    with pytest.raises(CaptureError, match=r"a Cell of shape \[2, 3\] that is not in state"):
        f(ones((), gpu_device))
    np.testing.assert_array_equal(cell.value.numpy(), 1.0)


def test_an_error_in_mid_trace_leaves_all_as_it_was(gpu_device: Device) -> None:
    model, optimizer = ModelConfig(10, 16).init(gpu_device.autodiff()), AdamConfig().init()
    fail = True

    def step(x: Tensor, y: Tensor) -> Tensor:
        loss = step_of(model, optimizer)(x, y)
        if fail:
            raise KeyError("mine")
        return loss

    f = capture(state=[model, optimizer, gpu_device])(step)
    before, stream = [p.value.numpy() for p in model.params()], gpu_device.rng.stream
    with pytest.raises(KeyError, match="mine"):
        f(*batch(gpu_device.autodiff(), 4))
    assert optimizer.steps == 0 and gpu_device.rng.stream == stream and not f.steps
    for p, w in zip(model.params(), before, strict=True):
        np.testing.assert_array_equal(p.value.numpy(), w)
    fail = False
    for _ in range(2):
        assert np.isfinite(f(*batch(gpu_device.autodiff(), 4)).item())
    assert optimizer.steps == 2 and gpu_device.rng.stream > stream


def test_a_captured_function_within_another_becomes_part_of_it(gpu_device: Device) -> None:
    cell = Cell(ones((3,), gpu_device))
    inner = capture(state=[cell])(lambda x: setattr(cell, "value", cell.value + x) or cell.value * 2.0)
    outer = capture(state=[cell])(lambda x: inner(x) + 1.0)
    x = ones((3,), gpu_device)
    found = [f(x).numpy()[0] for f in (outer, inner, outer, inner)]
    assert found == [5, 6, 9, 10] and len(outer.steps) == len(inner.steps) == 1


class Layer(Module):
    linear: Linear

    def scaled(self, x: Tensor, by: float) -> Tensor:
        return self.linear.forward(x) * by


def test_a_method_of_a_module_follows_its_parameters(gpu_device: Device) -> None:
    layer = Layer(LinearConfig(4, 3).init(gpu_device))
    f = capture(layer.scaled)
    x = ones((2, 4), gpu_device)
    for k in range(3):
        layer.linear.weight.value = ones((4, 3), gpu_device) * float(k)
        np.testing.assert_allclose(f(x, by=2.0).numpy(), layer.scaled(x, 2.0).numpy(), 1e-6)
    assert len(f.steps) == 1


def test_threads_call_one_captured_function(gpu_device: Device) -> None:
    cell = Cell(tensor(np.zeros(3, np.float32), gpu_device))
    f = capture(state=[cell])(lambda x: setattr(cell, "value", cell.value + 1.0) or x * 2.0)
    errors: list[BaseException] = []

    def work(k: int) -> None:
        try:
            for n in range(20):
                x = tensor(np.full(3 + k % 2, n, np.float32), gpu_device)
                np.testing.assert_array_equal((f(x) + 1.0).numpy(), 2 * n + 1)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors
    np.testing.assert_array_equal(cell.value.numpy(), 80)


LOST = """
from wgpu_nn import Device, ones
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.errors import DeviceLostError
from wgpu_nn.gpu import Gpu, choose
from wgpu_nn.tensor import Cell
from wgpu_nn.train.capture import capture
gpu = Gpu(choose()[0])
device = Device.of(Wgpu(gpu))
cell, x, long = Cell(ones((4,), device)), ones((4,), device), ones((5,), device)
f = capture(state=[cell])(lambda x: setattr(cell, "value", cell.value * 2.0) or x + 1.0)
f(x)
gpu.destroy()
for work in (lambda: f(x).numpy(), lambda: f(x).numpy(), lambda: f(long).numpy()):
    try:
        work()
    except DeviceLostError as error:
        assert "the device was lost" in str(error), error
    else:
        raise SystemExit("no error")
print("lives on")
"""


def test_a_captured_step_of_a_lost_device_is_an_error() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOST], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stdout == "lives on\n", done.stdout + done.stderr[-3000:]
