"""The body that measures a device's peak computes what it counts: chains of multiplications and additions."""

from __future__ import annotations

import numpy as np
import pytest

from tests.shader_bench import Out, run
from wgpu_nn import Device

pytestmark = pytest.mark.usefixtures("trust")


@pytest.mark.parametrize("turns", [0, 1, 40])
def test_fma_peak_runs_every_chain_for_all_its_turns(turns: int, gpu_device: Device) -> None:
    m, s, items = 0.875, 0.25, 39
    given = np.array([m, s], np.float32)
    out = run(
        gpu_device.gpu,
        "fma_peak",
        {"source": given, "out": Out((44,))},
        10,
        constants={"WORKGROUP": 4},
        sizes={"items": items, "turns": turns},
    )
    x = np.tile(np.arange(32.0), (items, 1))
    for _ in range(2 * turns):
        x = x * m + (s + np.arange(items)[:, None])
    np.testing.assert_allclose(out[:items], x.sum(1), rtol=1e-6)
    assert (out[items:] == -77).all()
