"""What may go wrong with captured steps beyond their arithmetic: aliasing, moved state, escapes, failures; a test each."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wgpu_nn import Device, Tensor, tensor
from wgpu_nn.errors import CaptureError
from wgpu_nn.nn import Linear, LinearConfig, Module, Param
from wgpu_nn.optim import AdamConfig, Optimizer, SgdConfig
from wgpu_nn.tensor import Cell
from wgpu_nn.train.capture import Captured, capture

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["fused", "plain"])
def fuse(request: pytest.FixtureRequest) -> bool:
    return request.param == "fused"


@pytest.fixture
def device(gpu_device: Device) -> Device:
    gpu_device.seed(4)
    return gpu_device


class Net(Module):
    first: Linear
    second: Linear

    def forward(self, x: Tensor[2]) -> Tensor[2]:
        return self.second.forward(self.first.forward(x).tanh())


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(list(shape)).standard_normal(shape).astype(np.float32)


def net(device: Device) -> Net:
    device.seed(4)
    return Net(LinearConfig(5, 7).init(device.autodiff()), LinearConfig(7, 3).init(device.autodiff()))


def step_of(model: Net, optimizer: Optimizer) -> Callable[[Tensor], Tensor]:
    def step(x: Tensor) -> Tensor:
        y = model.forward(x)
        loss = (y * y).mean()
        optimizer.step(model, loss.backward())
        return loss.inner()

    return step


class Pair:
    """One training run captured and the same eagerly, from equal starts."""

    def __init__(self, device: Device, fuse: bool, optimizer: Any = None) -> None:
        config = SgdConfig(lr=0.1, momentum=0.9) if optimizer is None else optimizer
        self.model, self.optimizer = net(device), config.init()
        self.other, self.second = net(device), config.init()
        self.eager = step_of(self.other, self.second)
        self.step: Captured[[Tensor], Tensor] = capture(state=[self.model, self.optimizer], fuse=fuse)(
            step_of(self.model, self.optimizer)
        )
        self.device, self.fuse = device.autodiff(), fuse

    def batch(self, n: int = 4) -> Tensor:
        return tensor(numbers(n, 5), self.device)

    def run(self, n: int = 4) -> None:
        self.step(self.batch(n))
        self.eager(self.batch(n))

    def check(self) -> None:
        for (name, p), q in zip(self.model.named_params(), self.other.params(), strict=True):
            same(p.value, q.value, self.fuse, name)


def same(got: Tensor, want: Tensor | np.ndarray, fuse: bool, name: str = "") -> None:
    """Bit for bit without fusion, else to a few roundings of numbers near 1."""
    if fuse:
        np.testing.assert_allclose(got.numpy(), np.asarray(want), 1e-5, 1e-6, err_msg=name)
    else:
        np.testing.assert_array_equal(got.numpy(), np.asarray(want), err_msg=name)


def kept(read: Callable[[], Tensor], run: Callable[[], object]) -> None:
    """What was read stays as it is while steps run."""
    value = read()
    before = value.numpy()
    for _ in range(2):
        run()
    np.testing.assert_array_equal(value.numpy(), before)


# --- state and its views -----------------------------------------------------------------------------------------------
def test_state_that_is_read_after_it_was_written_is_the_new_one(device: Device, fuse: bool) -> None:
    p = Cell(tensor(numbers(5), device))

    def step(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        old = p.value
        p.value = old * 2.0 + x
        middle = p.value
        p.value = middle - 1.0
        return old, middle, p.value

    run, want = capture(state=[p], fuse=fuse)(step), numbers(5)
    for _ in range(3):
        old, middle, new = run(tensor(numbers(5), device))
        same(old, want, fuse)
        same(middle, want * 2 + numbers(5), fuse)
        same(new, want * 2 + numbers(5) - 1, fuse)
        want = new.numpy()
        same(p.value, want, fuse)


def test_state_may_be_replaced_by_what_reads_it_transposed_sliced_and_repeated(device: Device, fuse: bool) -> None:
    p = Cell(tensor(numbers(5, 5), device))

    def step() -> Tensor:
        p.value = p.value + p.value.transpose() * 0.5 + p.value[1:2].expand(5, 5)
        return p.value.transpose()

    run, want = capture(state=[p], fuse=fuse)(step), numbers(5, 5)
    for _ in range(3):
        got = run()
        want = want + want.T * np.float32(0.5) + want[1:2]
        same(got, want.T, fuse)


def test_the_old_value_of_state_can_be_returned_through_views(device: Device, fuse: bool) -> None:
    p = Cell(tensor(numbers(3, 4), device))

    def step() -> tuple[Tensor, ...]:
        old = p.value
        p.value = old * 2.0
        return old, old.transpose(), old[1:], old.reshape(12), old

    want = numbers(3, 4)
    for found in [run() for run in [capture(state=[p], fuse=fuse)(step)] * 3]:
        for got, w in zip(found, (want, want.T, want[1:], want.reshape(12), want), strict=True):
            same(got, w, fuse)
        want = want * 2


def test_two_states_can_be_swapped(device: Device, fuse: bool) -> None:
    one, two = numbers(5), numbers(5) * 2
    a, b = Cell(tensor(one, device)), Cell(tensor(two, device))

    def step() -> Tensor:
        a.value, b.value = b.value, a.value
        return b.value.reshape(5, 1)

    run = capture(state=[a, b], fuse=fuse)(step)
    for n in range(3):
        got = run()
        same(got, (two if n % 2 else one).reshape(5, 1), fuse)
        same(a.value, one if n % 2 else two, fuse)


@pytest.mark.parametrize("value", [lambda x: x, lambda x: x * 2.0, lambda x: x * 0.0 + 3.0])
def test_state_can_be_written_and_not_read(device: Device, fuse: bool, value: Callable[[Tensor], Tensor]) -> None:
    p, x = Cell(tensor(numbers(5), device)), tensor(numbers(5), device)

    def step(x: Tensor) -> None:
        p.value = value(x)

    run = capture(state=[p], fuse=fuse)(step)
    for _ in range(2):
        assert run(x) is None
        same(p.value, value(x), fuse)


def test_views_of_state_read_outside_keep_their_elements(device: Device, fuse: bool) -> None:
    pair = Pair(device, fuse)
    weight = pair.model.first.weight
    run = lambda: pair.step(pair.batch())
    run()
    for view in (lambda w: w, lambda w: w.transpose(), lambda w: w.reshape(35), lambda w: w[1:3]):
        kept(lambda: view(weight.value), run)  # noqa: B023


def test_snapshots_stay_as_they_were(device: Device, fuse: bool) -> None:
    pair = Pair(device, fuse, AdamConfig(lr=0.1))
    run = lambda: pair.step(pair.batch())
    run()
    valid, clone = pair.model.valid(), pair.model.clone()
    kept(lambda: pair.optimizer.state()["first.weight/m"], run)
    kept(lambda: pair.model.state()["second.bias"], run)
    for module in (valid, clone):
        kept(lambda: module.forward(tensor(numbers(4, 5), module.device)), run)  # noqa: B023


def test_a_snapshot_stays_as_it_was_for_a_captured_evaluation(device: Device, fuse: bool) -> None:
    pair = Pair(device, fuse)
    pair.run()
    valid, x = pair.model.valid(), tensor(numbers(4, 5), device)
    evaluate = capture(state=[valid], fuse=fuse)(valid.forward)
    before = evaluate(x).numpy()
    for _ in range(2):
        pair.run()
        np.testing.assert_array_equal(evaluate(x).numpy(), before)


def test_reading_state_again_and_again_keeps_no_leases(device: Device) -> None:
    pair = Pair(device, True)
    pair.run()
    cell = pair.model.first.weight
    gc.disable()
    try:
        for _ in range(100):
            cell.value.transpose()
    finally:
        gc.enable()
    block = cell.tensor.root.buffer.block
    assert not cell.loans(block) and len(cell._loans) <= 32


def test_zero_size_tensors_are_arguments_state_and_results(device: Device, fuse: bool) -> None:
    empty, full = Cell(tensor(numbers(0, 5), device)), Cell(tensor(numbers(3), device))

    def step(x: Tensor) -> tuple[Tensor, Tensor]:
        empty.value = empty.value * 2.0
        full.value = full.value + x.sum()
        return empty.value.transpose(), x * 1.5

    run = capture(state=[empty, full], fuse=fuse)(step)
    for _ in range(2):
        first, second = run(tensor(numbers(0), device))
        assert first.shape == (5, 0) and second.shape == (0,)
    same(full.value, numbers(3), fuse)


# --- state from elsewhere ----------------------------------------------------------------------------------------------
def test_a_parameter_that_is_replaced_between_calls_is_honoured(device: Device, fuse: bool) -> None:
    pair = Pair(device, fuse)
    for n in range(4):
        pair.run()
        for m in (pair.model, pair.other):
            m.second.weight.value = tensor(numbers(7, 3) * n, pair.device)
    pair.check()
    assert len(pair.step.steps) == 1


def test_parameters_swapped_assigned_to_themselves_or_to_others_are_honoured(device: Device, fuse: bool) -> None:
    pair = Pair(device, fuse)
    for _ in range(3):
        pair.run()
        for m in (pair.model, pair.other):
            m.first.weight.value = m.first.weight.value
            m.second.weight.value = m.second.weight.value.transpose().reshape(7, 3)
            bias = m.first.bias
            assert bias is not None
            bias.value = m.second.weight.value.transpose()[1]
    pair.check()


def test_going_back_to_a_snapshot_restores_it_and_leaves_it_alone(device: Device, fuse: bool) -> None:
    pair = Pair(device, fuse)
    pair.run()
    best = pair.model.state()
    before = {name: t.numpy() for name, t in best.items()}
    for _ in range(2):
        pair.step(pair.batch())
        pair.model.load_state(best)
        for (name, w), p in zip(before.items(), pair.model.params(), strict=True):
            np.testing.assert_array_equal(p.value.numpy(), w)
            np.testing.assert_array_equal(best[name].numpy(), w)


def test_an_optimizers_state_that_is_loaded_between_calls_is_honoured(device: Device, fuse: bool) -> None:
    pair = Pair(device, fuse, AdamConfig(lr=0.1))
    for model, optimizer, step in ((pair.model, pair.optimizer, pair.step), (pair.other, pair.second, pair.eager)):
        step(pair.batch())
        start, state, steps = model.state(), optimizer.state(), optimizer.steps
        step(pair.batch())
        model.load_state(start)
        optimizer.load_state(model, state, steps)
        step(pair.batch())
    assert pair.optimizer.steps == pair.second.steps == 2
    pair.check()


def test_two_batch_sizes_in_turn_share_their_state(device: Device, fuse: bool) -> None:
    pair = Pair(device, fuse, AdamConfig(lr=0.01))
    for n in (6, 4, 4, 6, 6, 4):
        pair.run(n)
    assert len(pair.step.steps) == 2
    pair.check()


def test_a_snapshot_outlives_that_its_parameter_moves_to_another_step(device: Device, fuse: bool) -> None:
    pair = Pair(device, fuse)
    pair.run()
    kept(lambda: pair.model.first.weight.value, lambda: (pair.step(pair.batch(6)), pair.step(pair.batch())))
    swapped = Net(pair.model.first, pair.model.first)  # other state beside it, so another arena
    other = capture(state=[swapped, pair.optimizer], fuse=fuse)(step_of(pair.model, AdamConfig().init()).__call__)
    kept(lambda: pair.model.first.weight.value, lambda: pair.step(pair.batch()))
    with pytest.raises(CaptureError, match="not in state"):
        other(pair.batch())


def test_training_functions_with_other_optimizers_and_subsets_of_the_state_alternate(
    device: Device, fuse: bool
) -> None:
    pair = Pair(device, fuse)
    adam, adam2 = AdamConfig(lr=0.01).init(), AdamConfig(lr=0.01).init()
    second = capture(state=[pair.model, adam], fuse=fuse)(step_of(pair.model, adam))
    eager = step_of(pair.other, adam2)

    def mixed(m: Net) -> Callable[[], None]:
        def update() -> None:
            m.second.weight.value = m.second.weight.value + m.first.weight.value.sum() * 0.01
            m.first.weight.value = m.first.weight.value * 0.99 + m.first.weight.value[0] * 0.01

        return update

    third, other = capture(state=[pair.model], fuse=fuse)(mixed(pair.model)), mixed(pair.other)
    for _ in range(3):
        pair.run()
        second(pair.batch())
        eager(pair.batch())
        third()
        other()
    pair.check()


def test_training_and_evaluation_share_the_model(device: Device, fuse: bool) -> None:
    pair = Pair(device, fuse)
    evaluate = capture(state=[pair.model], fuse=fuse)(lambda x: pair.model.valid().forward(x))
    for _ in range(3):
        x = tensor(numbers(9, 5), device)
        same(evaluate(x), pair.other.valid().forward(x), fuse)
        pair.run()


def test_a_gradient_that_another_gradient_is_computed_from(device: Device, fuse: bool) -> None:
    # The gradient of `shift` is a product's; that of `row` is its sum. Both are leaves of one launch of the optimizer.
    class Shifts(Module):
        shift: Param
        row: Param

    def run(captured: bool) -> list[np.ndarray]:
        a = device.autodiff()
        m = Shifts(Param(tensor(numbers(4, 5), a)), Param(tensor(numbers(5), a)))
        optimizer, w = SgdConfig(lr=0.1).init(), tensor(numbers(5, 3), a)

        def step(x: Tensor) -> None:
            y = (x + m.shift.value + m.row.value) @ w
            optimizer.step(m, (y * y).mean().backward())

        f = capture(state=[m, optimizer], fuse=fuse)(step) if captured else step
        for _ in range(3):
            f(tensor(numbers(4, 5), a))
        return [p.value.numpy() for p in m.params()]

    for got, want in zip(run(True), run(False), strict=True):
        np.testing.assert_allclose(got, want, 1e-5 if fuse else 0, 1e-6 if fuse else 0)


def test_one_gradient_of_two_optimizers(device: Device, fuse: bool) -> None:
    def run(captured: bool) -> list[np.ndarray]:
        nets, optimizers = (net(device), net(device)), (SgdConfig(lr=0.1).init(), AdamConfig(lr=0.01).init())

        def step(x: Tensor) -> None:
            weights = [p.value + q.value for p, q in zip(*(n.params() for n in nets), strict=True)]
            y = ((x @ weights[0] + weights[1]).tanh() @ weights[2]) + weights[3]
            grads = (y * y).mean().backward()
            for n, o in zip(nets, optimizers, strict=True):
                o.step(n, grads)

        f = capture(state=[*nets, *optimizers], fuse=fuse)(step) if captured else step
        for _ in range(3):
            f(tensor(numbers(4, 5), device.autodiff()))
        return [p.value.numpy() for n in nets for p in n.params()]

    for got, want in zip(run(True), run(False), strict=True):
        np.testing.assert_allclose(got, want, 1e-5 if fuse else 0, 1e-6 if fuse else 0)
