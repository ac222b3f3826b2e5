"""Autotune: what is measured and what is not, what is remembered, and which candidates are never taken."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.candidates import every_candidate
from tests.conftest import PORTABLE
from wgpu_nn import Device, switches, tensor
from wgpu_nn.backends.choices import Choices
from wgpu_nn.backends.tuner import SOFTWARE, Limits, Tuner, agrees
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.dtype import F32
from wgpu_nn.gpu import Gpu, Kernel
from wgpu_nn.kernels import Target, View, whole
from wgpu_nn.kernels.map import run_map
from wgpu_nn.kernels.plan import Candidate, Site, Task
from wgpu_nn.tensor import Tensor
from wgpu_nn.train import capture

X, OUT = (whole((7, 13), F32, object()) for _ in range(2))
TASK = Task("double", "row", X.shape, (X,), (OUT,), 1)


def right(site: Site, views: Sequence[View]) -> None:
    run_map(site, "add", [views[0], views[0]], views[1])


def slow(site: Site, views: Sequence[View]) -> None:
    for _ in range(150):
        right(site, views)


def wrong(site: Site, views: Sequence[View]) -> None:
    run_map(site, "mul", [views[0], views[0]], views[1])


def lazy(site: Site, views: Sequence[View]) -> None:
    run_map(site, "add", [views[0].seen((84,), (1,))] * 2, views[1].seen((84,), (1,)))


def broken(site: Site, views: Sequence[View]) -> None:
    text = "@compute @workgroup_size(1)\nfn main() { not_a_function(); }"
    site.launch(lambda key, words: Kernel("broken", text, "rw", False, "broken.wgsl"), None, (), views, (1, 1, 1))


@pytest.fixture
def gpu(gpu_device: Device) -> Gpu:
    return gpu_device.gpu


@pytest.fixture(autouse=True)
def tuning() -> Iterator[None]:
    with switches.autotune.set("on"):
        yield


AMPLE = Limits(choice=60.0, rounds=20.0, process=600.0, work=1e9)  # so that a busy machine measures all of them


def tuner_of(gpu: Gpu, path: Path | None = None, limits: Limits = AMPLE, **more: Callable[[], float]) -> Tuner:
    return Tuner(gpu, Target(software=True, **PORTABLE), lambda: Choices(path, {}), limits, **more)


def named(*plans: Callable[[Site, Sequence[View]], None]) -> list[Candidate]:
    return [Candidate(plan.__name__, plan) for plan in plans]


def launched(gpu: Gpu, run: Callable[[], object]) -> int:
    before = gpu.counts.copy()
    run()
    return gpu.counts.since(before).launches


def test_the_fastest_is_chosen_and_remembered_without_a_launch(gpu: Gpu, tmp_path: Path) -> None:
    tuner, candidates = tuner_of(gpu, tmp_path / "a.json"), named(slow, right)
    assert tuner.choose(TASK, candidates) == 1
    near = TASK._replace(sizes=(7, 13))
    assert launched(gpu, lambda: tuner.choose(near, candidates)) == 0
    other = tuner_of(gpu, tmp_path / "a.json")  # as another process finds it
    chosen: list[int] = []
    assert launched(gpu, lambda: chosen.append(other.choose(TASK, candidates[::-1]))) == 0
    assert chosen == [0]  # by name, wherever it stands


def test_another_size_layout_or_adapter_kind_is_another_choice(gpu: Gpu) -> None:
    tuner, candidates = tuner_of(gpu), named(slow, right)
    tuner.choose(TASK, candidates)
    for task in (TASK._replace(sizes=(7, 14)), TASK._replace(traits="column"), TASK._replace(family="twice")):
        assert launched(gpu, lambda task=task: tuner.choose(task, candidates)) > 0
    with switches.checked_shaders.set(not switches.checked_shaders):
        assert launched(gpu, lambda: tuner.choose(TASK, candidates)) > 0


def test_once_measures_anew_what_is_known_and_only_once(gpu: Gpu, tmp_path: Path) -> None:
    path, candidates = tmp_path / "a.json", named(slow, right)
    tuner_of(gpu, path).choose(TASK, candidates)
    path.write_text(path.read_text().replace('"right"', '"slow"'))
    tuner = tuner_of(gpu, path)
    assert tuner.choose(TASK, candidates) == 0
    with switches.autotune.set("once"):
        assert tuner.choose(TASK, candidates) == 1
        assert launched(gpu, lambda: tuner.choose(TASK, candidates)) == 0
    assert tuner_of(gpu, path).choose(TASK, candidates) == 1


def test_an_adapter_without_timestamps_is_timed_by_the_clock(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(launches: object) -> list[float]:
        raise AssertionError("timestamps were asked for")

    monkeypatch.setattr(gpu, "features", gpu.features - {"timestamp-query"})
    monkeypatch.setattr(gpu.stream, "timed", refused)
    assert tuner_of(gpu).choose(TASK, named(slow, right)) == 1


def test_off_leaves_it_to_the_rules(gpu: Gpu) -> None:
    with switches.autotune.set("off"):
        assert launched(gpu, lambda: tuner_of(gpu).choose(TASK, named(slow, right))) == 0
        assert tuner_of(gpu).choose(TASK, named(slow, right)) == 0


def test_a_single_candidate_is_not_measured(gpu: Gpu) -> None:
    assert launched(gpu, lambda: tuner_of(gpu).choose(TASK, named(slow))) == 0


@pytest.mark.parametrize("bad", [wrong, lazy], ids=["other numbers", "elements left out"])
def test_a_wrong_candidate_is_dropped_with_a_warning(gpu: Gpu, bad: Callable[..., None]) -> None:
    with pytest.warns(UserWarning, match=f"expected {bad.__name__} to agree with slow"):
        assert tuner_of(gpu).choose(TASK, named(slow, bad)) == 0
    with pytest.warns(UserWarning, match="not used"):
        assert tuner_of(gpu).choose(TASK, named(slow, bad, right)) == 2


def test_a_candidate_that_does_not_compile_is_skipped_with_a_note(gpu: Gpu, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "wgpu_nn.autotune"):
        assert tuner_of(gpu).choose(TASK, named(slow, broken, right)) == 2
    assert "skipped broken" in caplog.text and "not_a_function" in caplog.text


def timed(tuner: Tuner, *seconds: float) -> list[int]:
    """Let the candidates of a tuner take so long; return a list that receives which is timed."""
    seen: list[int] = []

    def time(trial: Any) -> float:
        seen.append(trial.index)
        trial.best = seconds[trial.index]
        return trial.best

    tuner._time = time
    return seen


def test_as_good_is_not_better(gpu: Gpu) -> None:
    same = [Candidate(f"right {n}", right) for n in range(3)]
    for seconds, chosen in (((0.01, 0.0097, 0.0099), 0), ((0.01, 0.009, 0.008), 2)):
        tuner = tuner_of(gpu)
        timed(tuner, *seconds)
        assert tuner.choose(TASK, same) == chosen


def test_the_rules_stay_if_they_win_once_side_by_side(gpu: Gpu) -> None:
    tuner = tuner_of(gpu)
    seen = timed(tuner, 0.01, 0.005)
    calm, time = 15, tuner._time
    tuner._time = lambda trial: min(time(trial), 0.005 if len(seen) > calm else 1.0)
    assert tuner.choose(TASK, named(slow, right)) == 0
    assert len(seen) > calm


def test_losers_are_dropped_early(gpu: Gpu) -> None:
    tuner = tuner_of(gpu)
    seen = timed(tuner, 0.012, 0.01, 0.009, 0.09)
    assert tuner.choose(TASK, [Candidate(f"right {n}", right) for n in range(4)]) == 2
    counts = [seen.count(n) for n in range(4)]
    assert counts[3] == 1 and counts[1] == 6 and counts[0] == counts[2] == 11


def test_the_time_for_a_choice_and_for_all_is_bounded(gpu: Gpu, caplog: pytest.LogCaptureFixture) -> None:
    planned: list[int] = []

    def plan(n: int) -> Candidate:
        return Candidate(f"right {n}", lambda site, views: (planned.append(n), right(site, views))[1])

    ticks = itertools.count()
    tuner = tuner_of(gpu, limits=Limits(choice=4.0, rounds=3.0, process=7.0, work=1e9), clock=lambda: next(ticks))
    candidates = [plan(n) for n in range(20)]
    with caplog.at_level(logging.INFO, "wgpu_nn.autotune"):
        tuner.choose(TASK, candidates)
    # Two ticks before the first, one before each of the others, which takes one: the fourth would be too late.
    assert planned == [0, 1, 2] and "no time for 17 of 20" in caplog.text
    for n in range(3):
        tuner.choose(TASK._replace(sizes=(n,)), candidates)
    assert planned == [0, 1, 2]  # more than seven ticks were spent: rules choose from now on


def test_no_candidate_is_begun_that_may_take_longer_than_is_left(gpu: Gpu) -> None:
    planned: list[int] = []

    def plan(n: int) -> Candidate:
        return Candidate(f"right {n}", lambda site, views: (planned.append(n), right(site, views))[1])

    # The second candidate takes three seconds of five, as the third might.
    ticks = itertools.chain([0.0, 0.0, 0.0, 0.5, 3.5], itertools.repeat(3.5))
    tuner = tuner_of(gpu, limits=Limits(choice=5.0, rounds=1.0, process=60.0, work=1e9), clock=lambda: next(ticks))
    tuner.choose(TASK, [plan(n) for n in range(4)])
    assert planned == [0, 1]


def test_what_would_run_for_long_is_left_to_the_rules(gpu: Gpu) -> None:
    task = TASK._replace(terms=100)
    tuner = tuner_of(gpu, limits=SOFTWARE._replace(work=1000))
    assert launched(gpu, lambda: tuner.choose(task, named(slow, right))) == 0


def test_a_task_without_room_is_left_to_the_rules(gpu: Gpu, caplog: pytest.LogCaptureFixture) -> None:
    huge = whole((1 << 20, 1 << 20), F32, object()).seen((1 << 20, 2), (1 << 20, 1))
    with caplog.at_level(logging.INFO, "wgpu_nn.autotune"):
        assert tuner_of(gpu).choose(TASK._replace(reads=(X, huge)), named(slow, right)) == 0
    assert "no room to measure" in caplog.text


def test_rounding_agrees_and_a_lost_product_does_not(rng: np.random.Generator) -> None:
    for terms in (10, 1000, 100_000):
        a, b = rng.uniform(-1, 1, (2, 200, terms)).astype(np.float32)
        want = (a * b).sum(1, dtype=np.float32)
        running = np.add.accumulate(a * b, 1, dtype=np.float32)[:, -1]  # the worst order
        assert agrees(running, want, terms)
        assert not agrees(running - a[:, 3] * b[:, 3], want, terms)
    nan = np.array([1, np.nan, np.inf], np.float32)
    assert agrees(nan, nan, 1) and not agrees(np.ones(3, np.float32), nan, 1) and not agrees(nan, np.ones(3), 1)


# --- captured steps ----------------------------------------------------------------------------------------------------
@pytest.fixture(params=["software", "gpu"])
def device(request: pytest.FixtureRequest, gpu: Gpu) -> Device:
    return Device.of(Wgpu(gpu, Target(software=request.param == "software", **PORTABLE), tuned=True))


@pytest.mark.parametrize("shape", [(60, 520, 65), (3, 1030, 8), (64, 256, 64)], ids=str)
def test_every_candidate_of_a_product_agrees_with_float64(
    device: Device, shape: tuple[int, int, int], rng: np.random.Generator
) -> None:
    rows, inner, columns = shape
    a, b = (rng.uniform(-1, 1, s).astype(np.float32) for s in ((rows, inner), (columns, inner)))
    bias = rng.uniform(-1, 1, (columns,)).astype(np.float32)
    want = np.maximum(a.astype(np.float64) @ b.T + bias, 0)
    x, w, c = (tensor(v, device) for v in (a, b, bias))
    names: set[str] = set()
    for forced in every_candidate(device):

        @capture
        def f(x: Tensor, w: Tensor, c: Tensor) -> Tensor:
            return (x @ w.transpose() + c).relu()

        np.testing.assert_allclose(f(x, w, c).numpy(), want, 1e-5, 2e-5, err_msg=forced.names[0])
        names |= set(forced.names)
    assert len(names) > 3


def test_a_captured_function_is_tuned_once_and_agrees_with_the_rules(
    device: Device, tmp_path: Path, rng: np.random.Generator
) -> None:
    device.root.tuner = Tuner(device.gpu, device.root.target, lambda: Choices(tmp_path / "a.json", {}))  # pyright: ignore
    a, b = (tensor(rng.uniform(-1, 1, s).astype(np.float32), device) for s in ((16, 512), (512, 16)))

    @capture
    def f(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y).exp()

    with switches.autotune.set("off"):
        rules = f(a, b).numpy()
        assert not (tmp_path / "a.json").exists()
    tuned = f(a, b).numpy()
    np.testing.assert_allclose(tuned, rules, 1e-4)
    assert "matmul 1 x 16 x 16 x 512" in (tmp_path / "a.json").read_text()
    assert len(f.steps) == 2
    assert launched(device.gpu, lambda: f(a, b)) == f.steps[-1].step.launches


CONVOLUTIONS = [
    # x, weight and window: strips and filters; direct and tiles; blocks, in one group and in two
    ((2, 3, 9, 8), (5, 3, 3, 3), {"padding": ((1, 1), (1, 1))}),
    ((3, 12, 10, 11), (20, 12, 3, 2), {"stride": (2, 1), "padding": ((0, 2), (1, 0))}),
    ((2, 64, 9, 12), (64, 32, 1, 1), {"groups": 2}),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("op", ["conv2d", "conv2d_input_grad", "conv2d_weight_grad"])
def test_every_candidate_of_a_convolution_agrees_with_float64(
    device: Device, exact: Device, op: str, case: Any, rng: np.random.Generator
) -> None:
    x_shape, w_shape, more = case
    window = {"stride": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1} | more
    x, w, b = (rng.uniform(-1, 1, s).astype(np.float32) for s in (x_shape, w_shape, w_shape[:1]))

    def run(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        out = x.run("conv2d", x, w, b, **window)
        if op == "conv2d":
            return (out.relu(),)
        g = out * 0 + 0.5 * out.cos()
        if op == "conv2d_input_grad":
            return (out.run(op, g, w, shape=x_shape, **window).relu(),)
        return out.run(op, x, g, shape=w_shape, **window), g.sum((0, 2, 3))

    wanted = [t.numpy() for t in run(*(tensor(v, exact) for v in (x, w, b)))]
    given = [tensor(v, device) for v in (x, w, b)]
    names: set[str] = set()
    for forced in every_candidate(device):
        for got, want in zip(capture(lambda x, w, b: run(x, w, b))(*given), wanted, strict=True):
            np.testing.assert_allclose(got.numpy(), want, 1e-4, 1e-4, err_msg=str(forced.names))
        names |= set(forced.names)
    assert len(names) > 1


def test_a_training_step_is_tuned_and_agrees_with_the_rules(device: Device, rng: np.random.Generator) -> None:
    from wgpu_nn.nn import Conv2dConfig
    from wgpu_nn.optim import SgdConfig

    device.root.tuner = Tuner(device.gpu, device.root.target, lambda: Choices(None, {}))  # pyright: ignore
    x = tensor(rng.uniform(-1, 1, (4, 32, 9, 9)).astype(np.float32), device.autodiff())

    def losses() -> list[float]:
        device.seed(1)
        layer = Conv2dConfig(channels=(32, 40), kernel_size=(3, 3)).init(device.autodiff())
        optimizer = SgdConfig(lr=0.1).init()

        @capture(state=[layer, optimizer])
        def step(x: Tensor) -> Tensor:
            loss = layer.forward(layer.forward(x)[:, :32].relu()).square().mean()
            optimizer.step(layer, loss.backward())
            return loss.inner()

        return [step(x).item() for _ in range(3)]

    with switches.autotune.set("off"):
        rules = losses()
    np.testing.assert_allclose(losses(), rules, 1e-5)
    families = {k.split()[0] for k in device.root.tuner._choices._known}  # pyright: ignore
    assert {"conv2d", "conv2d_weight_grad"} <= families
