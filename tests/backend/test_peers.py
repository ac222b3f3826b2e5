"""The page's CNN takes the same six steps as PyTorch, tinygrad, JAX and MLX did from the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from wgpu_nn import Device, switches, tensor
from wgpu_nn.models import ModelConfig
from wgpu_nn.nn import CrossEntropyLossConfig
from wgpu_nn.optim import AdamConfig

# PyTorch 2.x on a CPU; dropout 0, batch 64, Adam with a rate of 1e-4.
LOSSES = [2.30053, 2.29002, 2.28039, 2.27144, 2.26311, 2.25546]


def drawn() -> dict[str, np.ndarray]:
    """Return images, labels and parameters in the order in which all peers draw them."""
    r = np.random.default_rng(0)
    normal = lambda *shape, scale: (r.standard_normal(shape) * scale).astype(np.float32)
    return {
        "x": r.random((64, 28, 28), dtype=np.float32),
        "y": r.integers(0, 10, 64),
        "conv1.weight": normal(8, 1, 3, 3, scale=0.3),
        "conv1.bias": np.zeros(8, np.float32),
        "conv2.weight": normal(16, 8, 3, 3, scale=0.1),
        "conv2.bias": np.zeros(16, np.float32),
        # PyTorch's linear weights are [out, in]
        "linear1.weight": normal(512, 1024, scale=0.03).T,
        "linear1.bias": np.zeros(512, np.float32),
        "linear2.weight": normal(10, 512, scale=0.04).T,
        "linear2.bias": np.zeros(10, np.float32),
    }


@pytest.mark.parametrize("name", ["cpu", "exact", "gpu_device", "checked", "gpu kernels"])
def test_six_steps_give_the_losses_of_the_peers(name: str, request: pytest.FixtureRequest) -> None:
    if name == "gpu kernels":
        below: Device = request.getfixturevalue("gpu_variants")["gpu"]
    else:
        below = request.getfixturevalue("gpu_device" if name == "checked" else name)
    device = below.autodiff()
    data = drawn()
    with switches.checked_shaders.set(name == "checked"):
        model = ModelConfig(10, 512).with_dropout(0.0).init(device)
        model.load_state({k: tensor(v, device) for k, v in data.items() if k not in ("x", "y")})
        x, y = tensor(data["x"], device), tensor(data["y"], device)
        loss_of, optimizer = CrossEntropyLossConfig().init(), AdamConfig().with_lr(1e-4).init()
        found: list[float] = []
        for _ in LOSSES:
            loss = loss_of.forward(model.forward(x), y)
            optimizer.step(model, loss.backward())
            found.append(float(loss))
    assert found == pytest.approx(LOSSES, abs=1e-4)
