"""Each WGSL body by itself, trusted and checked, against NumPy on small awkward sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.case import i32
from tests.shader_bench import Out, needs, run
from wgpu_nn import Device
from wgpu_nn.backends import numpy_routines as reference
from wgpu_nn.gpu import Gpu

pytestmark = pytest.mark.usefixtures("trust")
ROUND: dict[str, Any] = {"rtol": 2e-6, "atol": 2e-6}  # sums of fewer than 40 products of numbers around 1


@pytest.fixture
def gpu(gpu_device: Device) -> Gpu:
    return gpu_device.gpu


def given(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("workgroup", [1, 4, 64])
def test_map_computes_each_step_once_and_none_beyond(workgroup: int, gpu: Gpu) -> None:
    x = given(35)
    text = "fn compute(i: u32) { out[i] = source[i] * 2.0 + f32(i); }"
    out = run(
        gpu,
        "map",
        {"source": x, "out": Out((40,))},
        -(-35 // workgroup),
        constants={"WORKGROUP": workgroup},
        sizes={"steps": 35},
        text=text,
    )
    np.testing.assert_array_equal(out[:35], x * 2 + np.arange(35, dtype=np.float32))
    assert (out[35:] == -77).all()


@pytest.mark.parametrize("kind", [np.float32, np.int32, np.uint32])
@pytest.mark.parametrize(("first", "held"), [(0, 5), (2, 2), (4, 1)])
def test_gather_reads_what_is_named_marks_what_is_not_there_and_leaves_what_another_launch_holds(
    first: int, held: int, kind: Any, gpu: Gpu
) -> None:
    x, index = (given(7, 3) * 100).astype(kind), i32([0, 4, -1, -5, 5, -6, 2, 2**31 - 1, 3, 1, 4, 3, 2, -2, 1, 0])
    element = {np.float32: "f32", np.int32: "i32", np.uint32: "u32"}[kind]
    text = f"""struct Place {{ source: u32, index: u32 }}
    fn locate(i: u32) -> Place {{ return Place(1u, i); }}
    fn missing() -> {element} {{ return {element}(7); }}"""
    sizes = {"items": 16, "limit": 5, "first": first, "held": held, "axis_stride": 3}
    buffers = {"source": x[first : first + held + 1], "index": index, "out": Out((20,), kind)}
    out = run(gpu, "gather", buffers, 4, constants={"WORKGROUP": 4}, sizes=sizes, text=text)
    mark = np.full(1, -77).astype(kind)[0]
    want = np.full(20, mark)
    for i, named in enumerate(np.where(index < 0, index.astype(np.int64) + 5, index)):
        if not 0 <= named < 5:
            want[i] = 7
        elif first <= named < first + held:
            want[i] = x[named, 1]
    np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_scatter_adds_all_that_is_sent_in_order(kind: Any, gpu: Gpu) -> None:
    index, source = np.full((6, 2), -1, np.int32), (given(6, 3, seed=1) * 9).astype(kind)
    index[:, 1] = [1, -1, 1, 9, -5, 3]  # the other column is not asked
    base = (given(12) * 9).astype(kind)
    # Elements 1 .. 4 are targets 0 .. 3 of the last column of the source; to the others nothing can be sent.
    text = """struct Place { base: u32, index: u32, source: u32, inside: bool }
    fn locate(i: u32) -> Place { return Place(i, 1u, 2u, i > 0u && i < 5u); }
    fn axis_of(i: u32) -> u32 { return i - 1u; }"""
    sizes = {"items": 12, "limit": 4, "senders": 6, "index_stride": 2, "source_stride": 3}
    buffers = {"base": base, "index": index, "source": source, "out": Out((13,), kind)}
    out = run(gpu, "scatter_add", buffers, 6, constants={"WORKGROUP": 2}, sizes=sizes, text=text)
    want = base.copy()
    for k, at in enumerate(index[:, 1]):
        if -4 <= at < 4:
            want[1 + at % 4] += source[k, 2]
    np.testing.assert_array_equal(out, [*want, -77])


# Rows, inner, columns; and whether the second operand, which both batches share then, is summed along the inner axis.
PRODUCTS = [
    (1, 1, 1, False),
    (16, 8, 17, False),
    (8, 16, 8, True),
    (3, 5, 21, True),
    (19, 40, 21, False),
    (18, 72, 22, True),
    (5, 152, 16, False),
]


@pytest.mark.parametrize(("rows", "inner", "columns", "sums"), PRODUCTS)
@pytest.mark.parametrize(
    ("file", "teams", "by_inner"),
    [
        ("matmul_direct", 1, ()),
        ("matmul_dot", 1, ()),
        ("matmul_tile", 1, (True, False)),
        ("matmul_tile", 4, (False, False)),
        ("matmul_tile", 1, (True, True)),
        ("matmul_tile", 4, (False, True)),
    ],
)
def test_matmul_multiplies_slices_of_batches(
    file: str, teams: int, by_inner: tuple[bool, ...], rows: int, inner: int, columns: int, sums: bool, gpu: Gpu
) -> None:
    if file == "matmul_dot" and inner % 4:
        inner = 4
    x, y = given(2, rows, inner), given(1 if sums else 2, inner, columns, seed=1)
    slices = 2 if inner >= 16 and not sums else 1
    per_slice = -(-inner // slices)
    unit = 16 * teams if file == "matmul_tile" else 1
    per_slice = -(-per_slice // unit) * unit
    slices = -(-inner // per_slice)
    sizes = {"rows": rows, "columns": columns, "inner": inner, "batches": 2, "slices": slices, "per_slice": per_slice}
    text = f"""fn a_start(batch: u32) -> u32 {{ return batch * rows() * inner(); }}
    fn b_start(batch: u32) -> u32 {{ return {"0u" if sums else "batch"} * inner() * columns(); }}
    const SUMS = {str(sums).lower()};
    """
    text += """fn c_start(batch: u32, slice: u32) -> u32 { return (slice * batches() + batch) * rows() * columns(); }
    fn c_store(start: u32, m: u32, n: u32, v: vec4f) {
        for (var i = 0u; i < 4u; i++) { if (n + i < columns()) { out[start + m * columns() + n + i] = v[i]; } }
    }
    fn sums_store(n: u32, v: vec4f) {
        for (var i = 0u; i < 4u; i++) { if (n + i < columns()) { sums[n + i] = v[i]; } }
    }
    fn a_one(start: u32, m: u32, k: u32) -> f32 {
        return select(0.0, a[start + min(m, rows() - 1u) * inner() + min(k, inner() - 1u)], m < rows() && k < inner());
    }
    fn b_one(start: u32, k: u32, n: u32) -> f32 {
        let at = start + min(k, inner() - 1u) * columns() + min(n, columns() - 1u);
        return select(0.0, b[at], n < columns() && k < inner());
    }
    fn b_four(s: u32, k: u32, n: u32) -> vec4f {
        return vec4f(b_one(s, k, n), b_one(s, k, n + 1u), b_one(s, k, n + 2u), b_one(s, k, n + 3u));
    }
    """
    constants: dict[str, int | bool] = {"WORKGROUP": 2}
    if file == "matmul_tile":
        constants = {"SIDE": 4, "TILE": 16, "GROUPS": teams}
        constants |= dict(zip(("A_BY_INNER", "B_BY_INNER"), by_inner, strict=True))
        text += """fn a_load(s: u32, m: u32, k: u32) -> vec4f {
            return vec4f(a_one(s, m, k), a_one(s, m + 1u, k), a_one(s, m + 2u, k), a_one(s, m + 3u, k));
        }
        fn b_load(s: u32, k: u32, n: u32) -> vec4f { return b_four(s, k, n); }"""
        groups = -(-columns // 16) * -(-rows // 16) * 2 * slices
    else:
        width = 8 if file == "matmul_direct" else 4
        tiles_x = -(-columns // width)
        sizes |= {"tiles_x": tiles_x, "tiles": tiles_x * -(-rows // 8) * 2 * slices}
        groups = -(-sizes["tiles"] // 2)
        if file == "matmul_direct":
            text += """fn a_at(s: u32, m: u32, k: u32) -> f32 { return a[s + m * inner() + k]; }
            fn b_at(s: u32, k: u32, n: u32) -> vec4f { return b_four(s, k, n); }"""
        else:  # four inner elements at a time
            text += """fn a_at(s: u32, m: u32, k: u32) -> vec4f {
                let at = s + m * inner() + 4u * k;
                return vec4f(a[at], a[at + 1u], a[at + 2u], a[at + 3u]);
            }
            fn b_at(s: u32, k: u32, n: u32) -> vec4f {
                let at = s + 4u * k * columns() + n;
                return vec4f(b[at], b[at + columns()], b[at + 2u * columns()], b[at + 3u * columns()]);
            }"""
    # A mark more than there are columns: nothing is stored behind them.
    buffers: dict[str, Any] = {"a": x, "b": y, "out": Out((slices, 2, rows, columns)), "sums": Out((columns + 1,))}
    out, added = run(gpu, file, buffers, groups, constants=constants, sizes=sizes, text=text)
    np.testing.assert_allclose(out.sum(axis=0), x.astype(np.float64) @ y, rtol=1e-5, atol=1e-5)
    want = [*y[0].astype(np.float64).sum(axis=0), -77] if sums else np.full(columns + 1, -77)
    np.testing.assert_allclose(added, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("file", ["cross_entropy", "cross_entropy_grad"])
def test_cross_entropy_of_rows_and_its_gradient(file: str, gpu: Gpu) -> None:
    # Every third column of the rows of an array, whose other columns are far larger; and every other target.
    wide, sent = given(10, 14) + 1000, np.full(21, 9, np.int32)
    wide[:, 1:13:3], sent[1::2] = given(10, 4) * 5, [0, 3, 1, 2, 4, -1, 0, 0, 3, 2]
    wide[6:9, 1:13:3] = [[90, 1, 2, 3], [-1, -2, -3, 95], [0, 97, 1, 2]]  # of these exponentials overflow
    x, targets = np.ascontiguousarray(wide[:, 1:13:3]).astype(np.float64), i32(sent[1::2])
    sizes = {
        "rows": 10,
        "classes": 4,
        "logits_start": 1,
        "logits_row": 14,
        "logits_class": 3,
        "targets_start": 1,
        "targets_row": 2,
    }
    text = """fn cotangent(row: u32) -> f32 { return f32(row) + 1.0; }
        fn store_loss(row: u32, loss: f32) { losses[row] = loss; }"""
    grad = file == "cross_entropy_grad"
    # A mark more than there are losses: nothing is stored behind them.
    buffers = {"logits": wide, "targets": sent, "out": Out((10, 4) if grad else (10,)), "losses": Out((11,))}
    out, losses = run(gpu, file, buffers, 10, constants={"WORKGROUP": 1}, sizes=sizes, text=text)
    for found, alike in zip(
        (out, losses), run(gpu, file, buffers, 3, constants={"WORKGROUP": 4}, sizes=sizes, text=text)
    ):
        np.testing.assert_array_equal(found, alike)
    loss = reference.cross_entropy(x, targets)
    if grad:
        want = reference.cross_entropy_grad(np.arange(1.0, 11.0), x, targets)
        np.testing.assert_allclose(losses, [*loss, -77], rtol=1e-4, atol=1e-5)
    else:
        want = loss
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-5)


def test_a_body_without_all_that_it_needs_is_refused_by_name(gpu: Gpu) -> None:
    assert needs("map") == ["WORKGROUP", "steps", "compute"]
    with pytest.raises(AssertionError, match=r"map needs \['steps', 'compute'\]"):
        run(gpu, "map", {"out": Out((1,))}, 1, constants={"WORKGROUP": 1})
