"""Fused attention on both kinds of adapters: against the composite, what it costs, and where its limits are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.plans import Plans
from wgpu_nn import Device, Tensor, tensor
from wgpu_nn.backends.wgpu import Wgpu
from wgpu_nn.dtype import DType, Float
from wgpu_nn.errors import DeviceLimitError
from wgpu_nn.gpu import Gpu, choose
from wgpu_nn.kernels import Target, View
from wgpu_nn.nn import MultiHeadAttentionConfig, scaled_dot_product_attention
from wgpu_nn.nn.attention import attention_weights
from wgpu_nn.ops import DEFAULT_DTYPES
from wgpu_nn.optim import SgdConfig
from wgpu_nn.shape import Shape
from wgpu_nn.train.capture import capture

# Sums of fewer than 200 products of numbers below 4 by weights that sum to 1, each with an error of 20 ulp at most.
CLOSE: dict[str, Any] = {"rtol": 2e-5, "atol": 2e-5}


@pytest.fixture(params=["software", "gpu", "large gpu"])
def device(request: pytest.FixtureRequest, gpu_device: Device, gpu_variants: dict[str, Device]) -> Device:
    """Kernels of software adapters, of GPUs with the portable 16 KiB of workgroup memory, and with 32 KiB."""
    if request.param in gpu_variants:
        return gpu_variants[request.param]
    if gpu_device.gpu.limits["max-compute-workgroup-storage-size"] < 32768:
        pytest.skip("the adapter has less than 32 KiB of workgroup memory")
    return Device.of(Wgpu(gpu_device.gpu, Target(False, 256, 32768), tuned=True))


def given(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def learned(device: Device, arrays: list[np.ndarray], out: Callable[..., Tensor]) -> list[np.ndarray]:
    """Return the result of ``out`` and the gradients of its operands, for a cotangent that is the same everywhere."""
    leaves = [tensor(x, device.autodiff()).require_grad() for x in arrays]
    found = out(*leaves)
    grads = (found * tensor(given(*found.shape, seed=9), device.autodiff())).sum().backward()
    return [found.numpy(), *(grads[x].numpy() for x in leaves)]


def attended(device: Device, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    return scaled_dot_product_attention(tensor(q, device), tensor(k, device), tensor(v, device)).numpy()


# Heads of queries and keys, queries, keys, features of both, causal, mask: they cross the blocks of 4 and of 64, and with
# wide heads the blocks of 64 features, which a workgroup takes by twos if its memory allows.
ROWS = [
    ((4, 4), (33, 47), (16, 16), False, None),
    ((4, 2), (70, 70), (8, 8), True, None),
    ((2, 1), (9, 130), (8, 8), False, "bool"),
    ((2, 2), (131, 66), (8, 8), True, "float"),
    ((1, 1), (5, 67), (72, 130), False, None),
    ((2, 1), (133, 129), (36, 20), True, "bool"),
    ((1, 1), (129, 65), (10, 70), False, None),
]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_fused_equals_composite_in_value_and_gradients(row: Any, device: Device, exact: Device) -> None:
    (heads, shared), (n, m), (d, e), causal, masked = row
    rng = np.random.default_rng(5)
    seen = rng.random((2, 1, n, m)) < 0.7
    seen[:, :, 2] = False
    bias = np.where(seen, rng.standard_normal(seen.shape), -math.inf).astype(np.float32)
    arrays = [given(2, heads, n, d), given(2, shared, m, d, seed=1), given(2, shared, m, e, seed=2)]
    mask = {"bool": seen, "float": bias, None: None}[masked]

    def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return scaled_dot_product_attention(q, k, v, None if mask is None else tensor(mask, q.device), causal)

    def composite(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (
            x.unsqueeze(2).expand(2, shared, heads // shared, *x.shape[2:]).reshape(2, heads, *x.shape[2:])
            for x in (k, v)
        )
        return attention_weights(q, k, None if mask is None else tensor(mask, q.device), causal) @ v

    for got, want in zip(learned(device, arrays, fused), learned(exact, arrays, composite), strict=True):
        np.testing.assert_allclose(got, want, **CLOSE)


def test_heads_split_from_one_projection_are_read_where_they_lie(device: Device, exact: Device) -> None:
    x = given(2, 37, 3, 2, 4)

    def split(x: Tensor) -> Tensor:
        q, k, v = (x[:, :, n].permute(0, 2, 1, 3) for n in range(3))
        return scaled_dot_product_attention(q, k, v, causal=True)

    for got, want in zip(learned(device, [x], split), learned(exact, [x], split), strict=True):
        np.testing.assert_allclose(got, want, **CLOSE)


@pytest.mark.parametrize("where", ["query", "key", "value"])
def test_nan_reaches_what_depends_on_it_and_nothing_else(where: str, device: Device) -> None:
    q, k, v = given(1, 1, 6, 4), given(1, 1, 70, 4, seed=1), given(1, 1, 70, 4, seed=2)
    {"query": q[0, 0, 3], "key": k[0, 0, 67], "value": v[0, 0, 67]}[where][1] = np.nan
    out = np.isnan(attended(device, q, k, v))[0, 0]
    want = np.zeros((6, 4), bool)
    want[{"query": np.s_[3], "key": np.s_[:], "value": np.s_[:, 1]}[where]] = True
    np.testing.assert_array_equal(out, want)


def test_large_scores_do_not_overflow(device: Device, exact: Device) -> None:
    q, k, v = 40 * given(1, 1, 5, 4), 40 * given(1, 1, 70, 4, seed=1), given(1, 1, 70, 4, seed=2)
    got, want = (attended(d, q, k, v) for d in (device, exact))
    assert np.abs(q @ k.swapaxes(2, 3)).max() > 2000
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-3)  # scores of thousands have an error of 2^-13


def test_more_blocks_than_one_dimension_has_workgroups_take_two() -> None:
    # That a body counts workgroups over two dimensions is what the tests of bodies by themselves show.
    f32, batch = DEFAULT_DTYPES[Float], 65_537
    for software, groups in ((False, 2 * batch), (True, -(-32 * batch // 32))):
        plans = Plans(Target(software, 256, 16384, binding=1 << 28))
        q, k = (plans.empty((batch, 2, n, 4), f32) for n in ((64, 64) if software else (3, 3)))
        plans.run("attention", [q, k, k], {"scale": 1.0, "causal": False})
        width, height, depth = plans.launches[0][2]
        assert height > 1 and width <= 65_535 and depth == 1 and groups <= width * height < groups + height


def test_a_software_adapter_refuses_loops_that_it_would_cut(gpu_variants: dict[str, Device]) -> None:
    q, k = (tensor(np.zeros((1, 1, 1, 4)), gpu_variants["software"]).expand(1, 1, n, 4) for n in (1, 100_000))
    with pytest.raises(DeviceLimitError, match="attention: expected at most 87380 keys"):
        scaled_dot_product_attention(q, k, k)
    out = scaled_dot_product_attention(q, k.narrow(2, 0, 87_380), k.narrow(2, 0, 87_380) + 1.0)
    np.testing.assert_allclose(out.numpy(), 1.0, rtol=1e-4)


# --- what it costs -----------------------------------------------------------------------------------------------------
class Counted(Plans):
    """A site that notes what it hands out."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.made: list[int] = []

    def empty(self, shape: Shape, dtype: DType) -> View:
        self.made.append(math.prod(shape))
        return super().empty(shape, dtype)


@pytest.mark.parametrize("storage", [16384, 32768, 49152])
@pytest.mark.parametrize("software", [False, True])
def test_memory_does_not_grow_with_the_scores(software: bool, storage: int) -> None:
    plans = Counted(Target(software, 256, storage))
    f32 = DEFAULT_DTYPES[Float]
    q, k, g = (plans.empty((1, 2, 4096, 8), f32) for _ in range(3))
    lse = plans.empty((1, 2, 4096), f32)
    plans.made.clear()
    attrs = {"scale": 1.0, "causal": True}
    plans.run("attention", [q, k, k], attrs)
    plans.run("attention_grad_q", [g, q, k, k, lse, lse], attrs)
    plans.run("attention_grad_k", [g, q, k, k, lse, lse], attrs)
    plans.run("attention_grad_v", [g, q, k, lse], attrs)
    assert len(plans.launches) == 4 and plans.made == [2 * 4096 * 9, *[2 * 4096 * 8] * 3]


def test_new_lengths_and_batches_compile_nothing(gpu_device: Device) -> None:
    counts = gpu_device.gpu.counts

    def step(b: int, h: int, n: int, m: int) -> None:
        q, k = tensor(given(b, h, n, 8), gpu_device.autodiff()), tensor(given(b, h, m, 8), gpu_device.autodiff())
        leaves = [x.require_grad() for x in (q, k)]
        scaled_dot_product_attention(leaves[0], leaves[1], leaves[1], causal=True).sum().backward()

    step(2, 3, 16, 12)
    step(1, 3, 5, 7)
    step(1, 2, 130, 140)  # GPUs take larger blocks for long rows
    compiled = counts.pipelines
    for sizes in ((3, 3, 9, 12), (1, 2, 64, 65), (4, 1, 1, 3)):
        step(*sizes)
    assert counts.pipelines == compiled


def test_a_captured_step_with_attention_is_few_launches_and_equals_eager() -> None:
    device = Device.of(Wgpu(Gpu(choose()[0])))

    def train(captured: bool) -> tuple[list[np.ndarray], Any]:
        device.seed(3)
        mha = MultiHeadAttentionConfig(8, 2).with_dropout(0.0).init(device.autodiff())
        optimizer = SgdConfig(lr=0.1).init()

        def step(x: Tensor) -> Tensor:
            loss = (mha.forward(x, x, x, causal=True) - x).square().mean()
            optimizer.step(mha, loss.backward())
            return loss.inner()

        run = capture(state=[mha, optimizer])(step) if captured else step
        x = tensor(given(2, 6, 8), device.autodiff())
        losses = [run(x).numpy() for _ in range(3)]
        return [*losses, *(p.value.numpy() for p in mha.params())], run

    want, _ = train(False)
    got, run = train(True)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # three steps of some roundings of 6e-8 each
    assert got[2] < got[0]
    ops = [i.op for i in run.steps[0].program.instrs if "attention" in i.op]
    assert sorted(ops) == ["attention", *(f"attention_grad_{x}" for x in "kqv")]
    assert run.steps[0].step.launches <= 32
