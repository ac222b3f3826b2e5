"""Autotune of maps, reductions, rows and attention: every candidate is right, and only what is large is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.candidates import every_candidate
from tests.conftest import PORTABLE
from wgpu_nn import Device, switches, tensor
from wgpu_nn.backends.choices import Choices
from wgpu_nn.backends.tuner import Tuner
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.gpu import Gpu
from wgpu_nn.kernels import Target, plan
from wgpu_nn.tensor import Tensor
from wgpu_nn.train import capture


@pytest.fixture
def gpu(gpu_device: Device) -> Gpu:
    return gpu_device.gpu


@pytest.fixture(autouse=True)
def tuning() -> Iterator[None]:
    with switches.autotune.set("on"):
        yield


@pytest.fixture(params=["software", "gpu"])
def device(request: pytest.FixtureRequest, gpu: Gpu) -> Device:
    return Device.of(Wgpu(gpu, Target(software=request.param == "software", **PORTABLE), tuned=True))


BANDWIDTH: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "map": (2, lambda x: (x * 2.0).exp() + x.transpose()[:1].sum()),
    "reduce": (2, lambda x: x.sum(1)),
    "reduce columns": (2, lambda x: x.square().sum(0)),
    "reduce places": (2, lambda x: x.argmax(1).float()),
    "reduce all": (2, lambda x: x.mean()),
    "reduce moments": (2, lambda x: x.var(1)),
    "softmax": (2, lambda x: x.softmax(1) * 2.0),
    "log-softmax of columns": (2, lambda x: x.log_softmax(0)),
    "layer norm": (2, lambda x: x.run("layer_norm", x, epsilon=1e-5)),
}


@pytest.mark.parametrize("name", BANDWIDTH)
def test_every_candidate_of_what_bandwidth_bounds_agrees_with_float64(
    name: str, device: Device, exact: Device, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "WORTH", 0)
    fewest, fn = BANDWIDTH[name]
    x = rng.uniform(-1, 1, (31, 2052)).astype(np.float32)
    want, given = fn(tensor(x, exact)).numpy(), tensor(x, device)
    names: set[str] = set()
    for forced in every_candidate(device):
        np.testing.assert_allclose(capture(fn)(given).numpy(), want, 1e-5, 1e-5, err_msg=str(forced.names))
        names |= set(forced.names)
    assert len(names) >= fewest, names


def test_every_candidate_of_attention_agrees_with_float64(
    device: Device, gpu: Gpu, exact: Device, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wgpu_nn.backends.wgpu import target_of
    from wgpu_nn.nn import scaled_dot_product_attention

    monkeypatch.setattr(plan, "WORTH", 0)
    arrays = [rng.uniform(-1, 1, (1, 1, 70, 32)).astype(np.float32) for _ in range(3)]

    def fn(*xs: Tensor) -> Tensor:
        return scaled_dot_product_attention(*xs, causal=True)

    want = fn(*(tensor(v, exact) for v in arrays)).numpy()
    if not device.root.target.software:  # pyright: ignore[reportAttributeAccessIssue]
        storage = target_of(gpu).storage
        if storage < 24576:
            pytest.skip("the limits leave one tile: there is nothing to choose from")
        target = Target(software=False, invocations=256, storage=storage)
        device = Device.of(Wgpu(gpu, target, tuned=True))
    names: set[str] = set()
    for forced in every_candidate(device):
        got = capture(fn)(*(tensor(v, device) for v in arrays))
        np.testing.assert_allclose(got.numpy(), want, 1e-5, 1e-5, err_msg=str(forced.names))
        names |= set(forced.names)
    assert len(names) > 1


@pytest.mark.parametrize("name", ["map", "softmax"])
def test_what_touches_many_elements_is_measured_and_what_touches_few_is_not(
    name: str, device: Device, tmp_path: Path, rng: np.random.Generator
) -> None:
    device.root.tuner = Tuner(device.gpu, device.root.target, lambda: Choices(tmp_path / "a.json", {}))  # pyright: ignore
    fn = BANDWIDTH[name][1]
    for shape in ((31, 2052), (140, 2052)):
        x = tensor(rng.uniform(-1, 1, shape).astype(np.float32), device)
        tuned = capture(lambda x: fn(x))(x).numpy()
        with switches.autotune.set("off"):
            np.testing.assert_allclose(tuned, capture(lambda x: fn(x))(x).numpy(), 1e-5, 1e-6)
        assert (tmp_path / "a.json").exists() == (shape[0] == 140)
