"""Optimizers against their formulas written out in NumPy, several steps long, in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wgpu_nn import Device, Module, Param, Tensor, tensor
from wgpu_nn.errors import ConfigError, RecordError, TrainingError
from wgpu_nn.optim import AdamConfig, AdamWConfig, Optimizer, SgdConfig

DEVICE = Device("numpy:f64").autodiff()
STEPS = 6


class Bowl(Module):
    """A loss with a gradient that changes from step to step."""

    p: Param
    q: Param

    def loss(self) -> Tensor:
        return (self.p.value**4).sum() * 0.25 + (self.q.value * self.p.value.sum()).square().sum()


def bowl() -> Bowl:
    return Bowl(Param(tensor([1.0, -2.0, 0.5], DEVICE)), Param(tensor([[0.3], [-0.7]], DEVICE)))


def slopes(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    s = p.sum()
    return p**3 + 2 * s * (q * q).sum(), 2 * q * s * s


def sgd(o: dict[str, float], t: int, p: np.ndarray, g: np.ndarray, s: dict[str, Any]) -> np.ndarray:
    g = g + o.get("weight_decay", 0) * p
    if m := o.get("momentum", 0):
        s["v"] = g if t == 1 else m * s["v"] + (1 - o.get("dampening", 0)) * g
        g = g + m * s["v"] if o.get("nesterov") else s["v"]
    return p - o["lr"] * g


def adam(o: dict[str, Any], t: int, p: np.ndarray, g: np.ndarray, s: dict[str, Any]) -> np.ndarray:
    b1, b2 = o.get("betas", (0.9, 0.999))
    if o.get("decoupled"):
        p = p - o["lr"] * o["weight_decay"] * p
    else:
        g = g + o.get("weight_decay", 0) * p
    s["m"] = b1 * s.get("m", 0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0) + (1 - b2) * g * g
    return p - o["lr"] * (s["m"] / (1 - b1**t)) / (np.sqrt(s["v"] / (1 - b2**t)) + o.get("eps", 1e-8))


ROWS = [
    (SgdConfig(lr=0.01), sgd, {"lr": 0.01}),
    (SgdConfig(lr=0.01, momentum=0.9), sgd, {"lr": 0.01, "momentum": 0.9}),
    (SgdConfig(lr=0.01, momentum=0.9, dampening=0.3), sgd, {"lr": 0.01, "momentum": 0.9, "dampening": 0.3}),
    (SgdConfig(lr=0.01, momentum=0.8, nesterov=True), sgd, {"lr": 0.01, "momentum": 0.8, "nesterov": 1}),
    (SgdConfig(lr=0.01, weight_decay=0.2), sgd, {"lr": 0.01, "weight_decay": 0.2}),
    (AdamConfig(), adam, {"lr": 1e-3}),
    (AdamConfig(lr=0.1, betas=(0.8, 0.9), eps=1e-3), adam, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3}),
    (AdamConfig(lr=0.1, weight_decay=0.5), adam, {"lr": 0.1, "weight_decay": 0.5}),
    (AdamWConfig(), adam, {"lr": 1e-3, "weight_decay": 1e-2, "decoupled": True}),
    (AdamWConfig(lr=0.1, weight_decay=0.5), adam, {"lr": 0.1, "weight_decay": 0.5, "decoupled": True}),
]


@pytest.mark.parametrize(
    ("config", "formula", "options"), ROWS, ids=lambda v: repr(v)[:60] if not isinstance(v, dict) else ""
)
def test_steps_follow_the_formula(config: Any, formula: Any, options: dict[str, Any]) -> None:
    model = bowl()
    optimizer: Optimizer = config.init()
    want = [model.p.value.numpy(), model.q.value.numpy()]
    state: list[dict[str, Any]] = [{}, {}]
    for t in range(1, STEPS + 1):
        grads = slopes(*want)
        want = [formula(options, t, p, g, s) for p, g, s in zip(want, grads, state, strict=True)]
        optimizer.step(model, model.loss().backward())
        np.testing.assert_allclose(model.p.value.numpy(), want[0], rtol=1e-10)
        np.testing.assert_allclose(model.q.value.numpy(), want[1], rtol=1e-10)
    assert optimizer.steps == STEPS


def test_the_defaults_are_those_of_pytorchs_documentation() -> None:
    assert (SgdConfig().lr, SgdConfig().momentum, SgdConfig().dampening, SgdConfig().nesterov) == (1e-3, 0, 0, False)
    for config, decay in ((AdamConfig(), 0), (AdamWConfig(), 1e-2)):
        assert (config.lr, config.betas, config.eps, config.weight_decay) == (1e-3, (0.9, 0.999), 1e-8, decay)


def test_the_rate_can_change_between_steps() -> None:
    model, optimizer = bowl(), SgdConfig(lr=0.1).init()
    before = model.p.value.numpy()
    optimizer.lr = 0.0
    optimizer.step(model, model.loss().backward())
    np.testing.assert_array_equal(model.p.value.numpy(), before)


def test_frozen_parameters_and_those_without_a_gradient_stay() -> None:
    model, optimizer = bowl(), AdamConfig().with_lr(0.1).init()
    model.q = Param(model.q.value.detach(), trainable=False)
    before = model.q.value.numpy()
    optimizer.step(model, model.loss().backward())
    np.testing.assert_array_equal(model.q.value.numpy(), before)
    assert set(optimizer.state()) == {"p/m", "p/v"}
    only_p = bowl()
    AdamConfig().init().step(only_p, only_p.p.value.sum().backward())
    np.testing.assert_array_equal(only_p.q.value.numpy(), bowl().q.value.numpy())


def test_a_step_with_anothers_gradients_is_refused_and_counts_for_nothing() -> None:
    model, optimizer = bowl(), AdamConfig().init()
    with pytest.raises(TrainingError, match="step: no gradient belongs to this model"):
        optimizer.step(model, bowl().loss().backward())
    assert optimizer.steps == 0


def test_parameters_are_leaves_again_after_a_step() -> None:
    model, optimizer = bowl(), SgdConfig(lr=1e-3).init()
    for _ in range(3):
        before = model.loss().item()
        optimizer.step(model, model.loss().backward())
        assert model.loss().item() < before  # pyright: ignore
        assert model.p.value in model.loss().backward()


@pytest.mark.parametrize(
    "config",
    [SgdConfig(lr=0.01, momentum=0.9), AdamConfig().with_lr(0.05), AdamWConfig().with_lr(0.05)],
    ids=lambda c: type(c).__name__,
)
def test_a_saved_state_continues_exactly(config: Any) -> None:
    model, optimizer = bowl(), config.init()
    for _ in range(3):
        optimizer.step(model, model.loss().backward())
    again, resumed = bowl(), config.init()
    again.load_state(model.state())
    resumed.load_state(again, {k: v.to(Device("numpy:f64")) for k, v in optimizer.state().items()}, optimizer.steps)
    for m, o in ((model, optimizer), (again, resumed)):
        for _ in range(2):
            o.step(m, m.loss().backward())
    np.testing.assert_array_equal(model.p.value.numpy(), again.p.value.numpy())


def test_a_state_of_another_model_or_optimizer_is_refused_and_changes_nothing() -> None:
    model, optimizer = bowl(), AdamConfig().init()
    optimizer.step(model, model.loss().backward())
    state = optimizer.state()
    before = {k: v.numpy() for k, v in state.items()}
    cut = {k: v for k, v in state.items() if k != "p/v"}
    for bad in (
        {**state, "r/m": state["p/m"]},
        {**state, "p/velocity": state["p/m"]},
        {**state, "p/m": state["q/m"]},
        cut,
    ):
        with pytest.raises(RecordError, match="load Adam"):
            optimizer.load_state(model, bad, 7)
    assert optimizer.steps == 1 and optimizer.state().keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(optimizer.state()[name].numpy(), value)


def test_a_rate_below_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="lr"):
        AdamConfig().with_lr(-0.1)
    with pytest.raises(ConfigError, match="momentum"):
        SgdConfig(momentum=-1.0)
