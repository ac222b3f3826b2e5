"""The WGSL bodies of reductions by themselves, trusted and checked, against NumPy on small awkward sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.shader_bench import Out, run
from wgpu_nn import Device
from wgpu_nn.gpu import Gpu
from wgpu_nn.kernels.fold import loads

pytestmark = pytest.mark.usefixtures("trust")
ROUND: dict[str, Any] = {"rtol": 2e-6, "atol": 2e-6}  # sums of fewer than 40 numbers around 1


@pytest.fixture
def gpu(gpu_device: Device) -> Gpu:
    return gpu_device.gpu


def given(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


SUM = """alias Acc = f32;
fn start_of(o: u32) -> u32 { return o * row() + skipped(); }
fn identity() -> Acc { return 0.0; }
fn combine(a: Acc, b: Acc) -> Acc { return a + b; }
fn store(i: u32, a: Acc) { out[i] = a; }
"""
FIRST = """struct Acc { value: f32, place: u32 }
fn start_of(o: u32) -> u32 { return o * row() + skipped(); }
fn identity() -> Acc { return Acc(-1e30, 0u); }
fn combine(a: Acc, b: Acc) -> Acc {
    if (a.value > b.value || (a.value == b.value && a.place <= b.place)) { return a; }
    return b;
}
fn store(i: u32, a: Acc) { out[i] = f32(a.place); }
"""
# One element at a time from array<f32>, or four at once from array<vec4f>.
VALUES = {
    1: "fn value(at: u32) -> f32 { return source[at]; }",
    4: """fn value(at: u32) -> f32 { return source[at / 4u][at % 4u]; }
    fn values(at: u32) -> vec4f { return source[at / 4u]; }""",
}
ELEMENT = {1: "f32", 4: "vec4f"}


def padded(x: np.ndarray) -> np.ndarray:
    """Return the elements, and a mark up to a multiple of four: what lies behind must not be folded."""
    return np.concatenate([x.ravel(), np.full(-x.size % 4, 1e9, np.float32)])


def needed(file: str, constants: dict[str, int], outputs: int, slices: int = 1) -> int:
    """Return how many workgroups a body takes."""
    each = constants["WORKGROUP"]
    if file == "reduce_columns":
        return -(-outputs // (each // constants["LANES"] * constants["SPAN"])) * slices
    if file == "reduce_rows":
        each //= constants["LANES"]
    if file == "reduce_columns_alone":
        each *= constants["SPAN"] * constants["PARTS"]
    return -(-outputs * slices // each)


@pytest.mark.parametrize("slices", [1, 2, 5])
def test_reduce_folds_slices_of_strided_elements(slices: int, gpu: Gpu) -> None:
    x = given(3, 22)
    walk = "fn stride(d: u32) -> u32 { return 1u; } fn count(d: u32) -> u32 { return 22u; }"
    sizes = {"outputs": 3, "slices": slices, "length": 22, "row": 22, "skipped": 0}
    text = SUM + walk + VALUES[1] + loads("sum", "f32", 1)
    constants = {"WORKGROUP": 2, "RANK": 1}
    groups = needed("reduce", constants, 3, slices)
    out = run(
        gpu, "reduce", {"source": x, "out": Out((slices, 3))}, groups, constants=constants, sizes=sizes, text=text
    )
    want = [part.sum(axis=1) for part in np.array_split(x.astype(np.float64), slices, axis=1)]
    np.testing.assert_allclose(out, want, **ROUND)


@pytest.mark.parametrize("length", [1, 2, 4, 7, 22, 97])
@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize("skipped", [0, 1, 6])
@pytest.mark.parametrize("span", [1, 4])
@pytest.mark.parametrize(("file", "lanes"), [("reduce_rows_alone", 1), ("reduce_rows", 1), ("reduce_rows", 4)])
def test_reduce_folds_slices_of_rows_wherever_they_start(
    file: str, lanes: int, span: int, slices: int, skipped: int, length: int, gpu: Gpu
) -> None:
    x = given(6 * length + skipped)
    rows = x[skipped:].reshape(6, length)
    sizes = {"outputs": 6, "slices": slices, "length": length, "row": length, "skipped": skipped}
    constants = {"WORKGROUP": 2 * lanes, "SPAN": span, **({"LANES": lanes} if file == "reduce_rows" else {})}
    text = SUM + VALUES[span] + loads("sum", "f32", span)
    buffers = {"source": padded(x), "out": Out((slices, 6))}
    elements = {"source": ELEMENT[span]}
    groups = needed(file, constants, 6, slices)
    out = run(gpu, file, buffers, groups, constants=constants, sizes=sizes, text=text, elements=elements)
    want = [part.sum(axis=1) for part in np.array_split(rows.astype(np.float64), slices, axis=1)]
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)


def test_invocations_without_a_row_read_nothing(gpu: Gpu) -> None:
    x = given(1, 5)
    sizes = {"outputs": 1, "slices": 1, "length": 5, "row": 5, "skipped": 0}
    constants = {"WORKGROUP": 8, "SPAN": 1, "LANES": 4}
    text = SUM + VALUES[1] + loads("sum", "f32", 1)
    out = run(gpu, "reduce_rows", {"source": x, "out": Out((1,))}, 1, constants=constants, sizes=sizes, text=text)
    np.testing.assert_allclose(out, x.sum(axis=1), **ROUND)


@pytest.mark.parametrize("file", ["reduce", "reduce_rows", "reduce_rows_alone"])
def test_reduce_finds_places(file: str, gpu: Gpu) -> None:
    x = np.round(given(36, 61))  # places of the maxima all over the rows, some of them equal
    walk = "fn stride(d: u32) -> u32 { return 1u; } fn count(d: u32) -> u32 { return 61u; }"
    sizes = {"outputs": 36, "slices": 1, "length": 61, "row": 61, "skipped": 0}
    constants = {"WORKGROUP": 8, "RANK": 1, "SPAN": 1, "LANES": 4}
    text = FIRST + walk + VALUES[1] + loads("argmax", "f32", 1)
    groups = needed(file, constants, 36)
    out = run(gpu, file, {"source": x, "out": Out((36,))}, groups, constants=constants, sizes=sizes, text=text)
    np.testing.assert_array_equal(out, x.argmax(axis=1))


@pytest.mark.parametrize(
    ("file", "parts"), [("reduce_columns", 1), ("reduce_columns_alone", 1), ("reduce_columns_alone", 4)]
)
def test_reduce_finds_places_in_columns(file: str, parts: int, gpu: Gpu) -> None:
    x = np.round(given(61, 36))
    width = "fn stride(d: u32) -> u32 { return 36u; }"
    sizes = {"outputs": 36, "slices": 1, "length": 61, "row": 1, "skipped": 0}
    constants = {"WORKGROUP": 8, "SPAN": 1, "LANES": 4, "PARTS": parts}
    text = FIRST + width + VALUES[1] + loads("argmax", "f32", 1)
    groups = needed(file, constants, 36)
    out = run(gpu, file, {"source": x, "out": Out((36,))}, groups, constants=constants, sizes=sizes, text=text)
    np.testing.assert_array_equal(out, x.argmax(axis=0))


@pytest.mark.parametrize("slices", [1, 3])
@pytest.mark.parametrize(("columns", "span", "parts"), [(6, 1, 1), (8, 4, 1), (12, 1, 4), (32, 4, 4)])
@pytest.mark.parametrize(
    ("file", "lanes"),
    [("reduce_columns_alone", 1), ("reduce_columns", 1), ("reduce_columns", 4), ("reduce_columns", 8)],
)
def test_reduce_folds_slices_of_columns(
    file: str, lanes: int, columns: int, span: int, parts: int, slices: int, gpu: Gpu
) -> None:
    x = given(23, columns)
    width = f"fn stride(d: u32) -> u32 {{ return {columns}u; }}"
    sizes = {"outputs": columns, "slices": slices, "length": 23, "row": 1, "skipped": 0}
    extra = {"PARTS": parts} if file == "reduce_columns_alone" else {"LANES": lanes}
    constants = {"WORKGROUP": 2 if "PARTS" in extra else 8, "SPAN": span, **extra}
    text = SUM + width + VALUES[span] + loads("sum", "f32", span)
    buffers = {"source": padded(x), "out": Out((slices, columns))}
    elements = {"source": ELEMENT[span]}
    groups = needed(file, constants, columns, slices)
    out = run(gpu, file, buffers, groups, constants=constants, sizes=sizes, text=text, elements=elements)
    want = [part.sum(axis=0) for part in np.array_split(x.astype(np.float64), slices, axis=0)]
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("slices", [1, 3])
def test_reduce_walks_several_folded_axes_with_their_strides(slices: int, gpu: Gpu) -> None:
    x = given(4, 3, 5, 2)  # folds all axes but the second, the third backwards
    walk = """fn stride(d: u32) -> u32 {
        switch d { case 2u: { return 1u; } case 1u: { return 0xfffffffeu; } default: { return 30u; } }
    }
    fn count(d: u32) -> u32 { switch d { case 2u: { return 2u; } case 1u: { return 5u; } default: { return 4u; } } }"""
    text = SUM.replace("o * row() + skipped()", "o * 10u + 8u").replace("return a + b", "return a * 0.5 + b") + walk
    sizes = {"outputs": 3, "slices": slices, "length": 40}
    constants = {"WORKGROUP": 4, "RANK": 3}
    text += VALUES[1] + loads("sum", "f32", 1)
    groups = needed("reduce", constants, 3, slices)
    buffers = {"source": x, "out": Out((slices, 3))}
    out = run(gpu, "reduce", buffers, groups, constants=constants, sizes=sizes, text=text)
    folded = x.transpose(0, 2, 3, 1)[:, ::-1].reshape(40, 3)
    want = np.zeros((slices, 3))
    for k, part in enumerate(np.array_split(folded, slices)):
        for row in part:
            want[k] = want[k] * 0.5 + row
    np.testing.assert_allclose(out, want, **ROUND)


@pytest.mark.parametrize(("kind", "name"), [(np.int32, "i32"), (np.uint32, "u32")])
@pytest.mark.parametrize("span", [1, 4])
@pytest.mark.parametrize(
    "file", ["reduce", "reduce_rows", "reduce_rows_alone", "reduce_columns", "reduce_columns_alone"]
)
def test_whole_numbers_are_folded_as_they_are(file: str, span: int, kind: Any, name: str, gpu: Gpu) -> None:
    x = np.random.default_rng(0).integers(0, 2**31, (36, 36)).astype(kind)  # sums wrap around
    if file == "reduce":
        span = 1
    walk = "fn stride(d: u32) -> u32 { return %du; } fn count(d: u32) -> u32 { return 36u; }"
    columns = "columns" in file
    text = SUM.replace("f32", name).replace("0.0", f"{name}(0)") + walk % (36 if columns else 1)
    text += VALUES[span].replace("f32", name).replace("vec4f", f"vec4<{name}>") + loads("sum", name, span)
    sizes = {"outputs": 36, "slices": 1, "length": 36, "row": 1 if columns else 36, "skipped": 0}
    constants = {"WORKGROUP": 8, "RANK": 1, "SPAN": span, "LANES": 4, "PARTS": 1}
    elements = {"source": name if span == 1 else f"vec4<{name}>"}
    buffers = {"source": x, "out": Out((36,), kind)}
    groups = needed(file, constants, 36)
    out = run(gpu, file, buffers, groups, constants=constants, sizes=sizes, text=text, elements=elements)
    np.testing.assert_array_equal(out, x.sum(axis=0 if columns else 1, dtype=kind))
