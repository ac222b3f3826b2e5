"""The WGSL bodies of normalised rows and of softmax by themselves, trusted and checked, against NumPy on awkward sizes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.shader_bench import Out, run
from wgpu_nn import Device
from wgpu_nn.backends import numpy_norm as reference
from wgpu_nn.backends import numpy_routines
from wgpu_nn.gpu import Gpu

pytestmark = pytest.mark.usefixtures("trust")


@pytest.fixture
def gpu(gpu_device: Device) -> Gpu:
    return gpu_device.gpu


def given(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


ROW = """fn epsilon() -> f32 { return 0.01; }
fn outside() -> vec4f { return vec4f(); }
fn one(row: u32, k: u32) -> f32 { return select(0.0, source[row * length() + min(k, length() - 1u)], k < length()); }
fn fetch(row: u32, q: u32) -> vec4f {
    return vec4f(one(row, 4u * q), one(row, 4u * q + 1u), one(row, 4u * q + 2u), one(row, 4u * q + 3u));
}
fn put(row: u32, q: u32, v: vec4f) {
    for (var k = 0u; k < 4u; k++) { if (4u * q + k < length()) { out[row * length() + 4u * q + k] = v[k]; } }
}
"""
# For bodies that walk a row: what lies behind it is neither fetched nor put.
WALKED = ROW.replace("return vec4f(one", "if (4u * q >= length()) { return vec4f(nan()); } return vec4f(one").replace(
    "for (", "if (4u * q >= length()) { out[rows() * length()] = 1.0; } for ("
)
COTANGENT = ROW[ROW.index("fn one") : ROW.index("fn put")]
for name in ("one", "fetch"):
    COTANGENT = COTANGENT.replace(f"{name}(", f"{name}_cotangent(")
COTANGENT = COTANGENT.replace("source", "cotangent")
HOLDING = [(8, 8, 1), (8, 4, 2), (16, 8, 4), (32, 32, 8), (64, 32, 2)]  # workgroup, lanes, vectors held


def lengths(workgroup: int, lanes: int, held: int) -> list[int]:
    return sorted({1, 4 * lanes * held // 2 + 1, 4 * lanes * held - 1, 4 * lanes * held})


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(("workgroup", "lanes", "held"), HOLDING)
@pytest.mark.parametrize("grad", [False, True])
def test_norm_rows_hold_what_they_normalise(
    grad: bool, workgroup: int, lanes: int, held: int, centred: bool, gpu: Gpu
) -> None:
    for length in lengths(workgroup, lanes, held):
        x, g = given(8, length), given(8, length, seed=1)
        constants: dict[str, int | bool] = {"WORKGROUP": workgroup, "LANES": lanes, "HELD": held, "CENTRED": centred}
        buffers = {"source": x, **({"cotangent": g} if grad else {}), "out": Out((8, length))}
        text = ROW + (COTANGENT if grad else "")
        sizes = {"rows": 8, "length": length}
        file = "norm_rows_grad" if grad else "norm_rows"
        groups = -(-8 // (workgroup // lanes))
        out = run(gpu, file, buffers, groups, constants=constants, sizes=sizes, text=text)
        check(out, x, g, grad, centred)


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize(("workgroup", "lanes", "held"), HOLDING)
def test_softmax_held_takes_rows_of_any_length_that_fits(
    workgroup: int, lanes: int, held: int, log: bool, gpu: Gpu
) -> None:
    for length in lengths(workgroup, lanes, held):
        constants: dict[str, int | bool] = {"WORKGROUP": workgroup, "LANES": lanes, "HELD": held, "LOG": log}
        softmax(gpu, "softmax_held", length, 8, -(-8 // (workgroup // lanes)), constants)


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("length", [1, 3, 11, 64, 71, 300])
def test_softmax_walks_rows(length: int, log: bool, gpu: Gpu) -> None:
    softmax(gpu, "softmax", length, 8, 4, {"WORKGROUP": 2, "LOG": log})
    softmax(gpu, "softmax_stream", length, 6, 6, {"WORKGROUP": 8, "LANES": 8, "LOG": log})


def softmax(gpu: Gpu, file: str, length: int, rows: int, groups: int, constants: dict[str, int | bool]) -> None:
    x = given(rows, length) * 4
    # The two largest elements of a row, of which the exponentials overflow, lie in other places of each.
    at = np.arange(rows) * (max(length // rows, 1) + 1) % length
    x[range(rows), at], x[range(rows), (at + length // 2) % length] = 100, 99.5
    x[2, -1] = -np.inf
    text = (ROW if file == "softmax_held" else WALKED).replace("return vec4f()", "return vec4f(-infinity())")
    text = text.replace("select(0.0", "select(-infinity()")
    buffers = {"source": x, "out": Out((rows * length + 1,))}
    out = run(gpu, file, buffers, groups, constants=constants, sizes={"rows": rows, "length": length}, text=text)
    log = bool(constants["LOG"])
    with np.errstate(invalid="ignore"):
        want = (numpy_routines.log_softmax if log else numpy_routines.softmax)(x.astype(np.float64), axis=1)
    assert out[-1] == -77
    np.testing.assert_allclose(out[:-1].reshape(rows, length), want, rtol=1e-5, atol=2e-5 if log else 1e-7)


@pytest.mark.parametrize("length", [1, 3, 8, 41])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("file", ["norm_alone", "norm_alone_grad"])
def test_norm_alone_walks_a_row(file: str, centred: bool, length: int, gpu: Gpu) -> None:
    x, g = given(8, length), given(8, length, seed=1)
    grad = file.endswith("grad")
    buffers = {"source": x, **({"cotangent": g} if grad else {}), "out": Out((8 * length + 1,))}
    constants: dict[str, int | bool] = {"WORKGROUP": 2, "CENTRED": centred}
    text = WALKED + (COTANGENT if grad else "")
    out = run(gpu, file, buffers, 4, constants=constants, sizes={"rows": 8, "length": length}, text=text)
    assert out[-1] == -77
    check(out[:-1].reshape(8, length), x, g, grad, centred)


def check(out: np.ndarray, x: np.ndarray, g: np.ndarray, grad: bool, centred: bool) -> None:
    op = "layer_norm" if centred else "rms_norm"
    if grad:
        want = reference.NORMS[f"{op}_grad"](g.astype(np.float64), x.astype(np.float64), epsilon=0.01)
    else:
        want = reference.NORMS[op](x.astype(np.float64), epsilon=0.01)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)
