"""Gradients on Wgpu equal those on NumPy: the rules are the same, the kernels are not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cases import CASES, VIEWS, Arg, Case
from wgpu_nn import Device, Tensor, tensor
from wgpu_nn.autodiff.rules import NO_GRADIENT
from wgpu_nn.dtype import Float
from wgpu_nn.ops import OPS

SMOOTH = [c for c in CASES if c.op not in NO_GRADIENT and any(isinstance(a, Arg) and a.kind is Float for a in c.args)]
# One layout of each map and two of the others; that layouts do not matter is what test_ops shows.
CHOSEN = [c for c in SMOOTH if int(c.name.split("-")[-1]) < (2 if OPS[c.op].memory_bound else 4)]


def gradients(case: Case, below: Device) -> list[np.ndarray]:
    device = below.autodiff()
    leaves: list[Tensor] = []
    operands: list[object] = []
    for arg, x in zip(case.args, case.draw(), strict=True):
        if isinstance(arg, Arg):
            t = tensor(x, device, arg.kind)
            if arg.kind is Float:
                t = t.require_grad()
                leaves.append(t)
            handle = t.handle
            for op, attrs in VIEWS[arg.view](arg.shape)[1]:
                handle = device.backend.run(op, handle, **attrs)
            operands.append(handle)
        else:
            operands.append(x)
    out = Tensor(device, device.backend.run(case.op, *operands, **case.attributes(device.backend)))
    if out.kind is not Float:
        return []
    grads = (out * tensor(np.random.default_rng(1).uniform(-1, 1, out.shape), device)).sum().backward()
    return [grads[x].numpy() for x in leaves if x in grads]


@pytest.mark.parametrize("case", CHOSEN, ids=lambda c: c.name)
def test_a_gradient_on_wgpu_equals_numpys(case: Case, gpu_device: Device, exact: Device) -> None:
    for got, want in zip(gradients(case, gpu_device), gradients(case, exact), strict=True):
        assert got.shape == want.shape
        # A rule is a few ops, each within its own tolerance; the widest are those of sin and cos, 2^-11.
        loose = case.op in ("sin", "cos", "tan", "normal")
        np.testing.assert_allclose(got, want, rtol=3e-3 if loose else 5e-5, atol=3e-3 if loose else 2e-5)


def test_second_derivatives_on_wgpu(gpu_device: Device, exact: Device) -> None:
    found: list[np.ndarray] = []
    for below in (gpu_device, exact):
        x = tensor(np.linspace(-1, 1, 50).reshape(1, 2, 5, 5), below.autodiff().autodiff()).require_grad()
        w = tensor(np.linspace(0, 1, 18).reshape(1, 2, 3, 3), below.autodiff().autodiff())
        window = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
        y = x.run("conv2d", x, w, **window).tanh()
        loss = (
            y.run("max_pool2d", y, kernel=(2, 2), stride=(2, 2), padding=((0, 0), (0, 0))).log_softmax(3).square().sum()
        )
        first = loss.backward()[x]
        found.append((first * first).sum().backward()[x.inner()].numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-4)
