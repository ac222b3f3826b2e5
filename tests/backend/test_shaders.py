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


@pytest.mark.parametrize("workgroup", [1, 7, 64])
def test_map_computes_each_step_once_and_none_beyond(workgroup: int, gpu: Gpu) -> None:
    x = given(29)
    text = "fn compute(i: u32) { out[i] = source[i] * 2.0 + f32(i); }"
    out = run(
        gpu,
        "map",
        {"source": x, "out": Out((40,))},
        (3, 15, 1),
        constants={"WORKGROUP": workgroup},
        sizes={"steps": 29},
        text=text,
    )
    done = min(29, 45 * workgroup)
    np.testing.assert_array_equal(out[:done], (x * 2 + np.arange(29, dtype=np.float32))[:done])
    assert (out[29:] == -77).all()


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
    out = run(gpu, "gather", buffers, (2, 2, 1), constants={"WORKGROUP": 4}, sizes=sizes, text=text)
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
    base, index = (given(4) * 9).astype(kind), i32([1, -1, 1, 9, 0, 3])
    source = (given(6, seed=1) * 9).astype(kind)
    text = """struct Place { base: u32, index: u32, source: u32, inside: bool }
    fn locate(i: u32) -> Place { return Place(i, 0u, 0u, i != 0u); }
    fn axis_of(i: u32) -> u32 { return i; }"""
    sizes = {"items": 4, "limit": 4, "senders": 6, "index_stride": 1, "source_stride": 1}
    out = run(
        gpu,
        "scatter_add",
        {"base": base, "index": index, "source": source, "out": Out((5,), kind)},
        1,
        constants={"WORKGROUP": 8},
        sizes=sizes,
        text=text,
    )
    want = base.copy()
    for k, at in enumerate(index):
        if at in (1, 3, -1):
            want[at] += source[k]
    np.testing.assert_array_equal(out, [*want, -77])


@pytest.mark.parametrize("shape", [(1, 1, 1), (9, 8, 17), (8, 16, 8), (3, 5, 21)], ids=str)
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
    file: str, teams: int, by_inner: tuple[bool, ...], shape: tuple[int, int, int], gpu: Gpu
) -> None:
    rows, inner, columns = shape
    if file == "matmul_dot" and inner % 4:
        inner = 4
    x, y = given(2, rows, inner), given(2, inner, columns, seed=1)
    slices = 2 if inner >= 16 else 1
    per_slice = -(-inner // slices)
    sizes = {"rows": rows, "columns": columns, "inner": inner, "batches": 2, "slices": slices, "per_slice": per_slice}
    text = """fn a_start(batch: u32) -> u32 { return batch * rows() * inner(); }
    fn b_start(batch: u32) -> u32 { return batch * inner() * columns(); }
    fn c_start(batch: u32, slice: u32) -> u32 { return (slice * batches() + batch) * rows() * columns(); }
    fn c_store(start: u32, m: u32, n: u32, v: vec4f) {
        for (var i = 0u; i < 4u; i++) { if (n + i < columns()) { out[start + m * columns() + n + i] = v[i]; } }
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
    constants: dict[str, int | bool] = {"WORKGROUP": 8}
    b: Any = y
    if file == "matmul_tile":
        constants = {"SIDE": 4, "TILE": 16, "GROUPS": teams}
        constants |= dict(zip(("A_BY_INNER", "B_BY_INNER"), by_inner, strict=True))
        text += """fn a_load(s: u32, m: u32, k: u32) -> vec4f {
            return vec4f(a_one(s, m, k), a_one(s, m + 1u, k), a_one(s, m + 2u, k), a_one(s, m + 3u, k));
        }
        fn b_load(s: u32, k: u32, n: u32) -> vec4f { return b_four(s, k, n); }"""
        per_slice = sizes["per_slice"] = -(-per_slice // (16 * teams)) * 16 * teams
        slices = sizes["slices"] = -(-inner // per_slice)
    else:
        width = 8 if file == "matmul_direct" else 4
        tiles_x = -(-columns // width)
        sizes |= {"tiles_x": tiles_x, "tiles": tiles_x * -(-rows // 8) * 2 * slices}
        if file == "matmul_direct":
            text += """fn a_at(s: u32, m: u32, k: u32) -> f32 { return a_one(s, m, k); }
            fn b_at(s: u32, k: u32, n: u32) -> vec4f { return b_four(s, k, n); }"""
        else:  # four inner elements at a time
            text += """fn a_at(s: u32, m: u32, k: u32) -> vec4f {
                let at = 4u * k;
                return vec4f(a_one(s, m, at), a_one(s, m, at + 1u), a_one(s, m, at + 2u), a_one(s, m, at + 3u));
            }
            fn b_at(s: u32, k: u32, n: u32) -> vec4f {
                let at = 4u * k;
                return vec4f(b_one(s, at, n), b_one(s, at + 1u, n), b_one(s, at + 2u, n), b_one(s, at + 3u, n));
            }"""
    out = run(
        gpu,
        file,
        {"a": x, "b": b, "out": Out((slices, 2, rows, columns))},
        (5, 9, 1),
        constants=constants,
        sizes=sizes,
        text=text,
    )
    np.testing.assert_allclose(out.sum(axis=0), x.astype(np.float64) @ y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("file", ["cross_entropy", "cross_entropy_grad"])
def test_cross_entropy_of_rows_and_its_gradient(file: str, gpu: Gpu) -> None:
    x, targets = given(9, 4) * 5, i32([0, 3, 1, 2, 4, -1, 0, 0, 3])
    sizes = {
        "rows": 9,
        "classes": 4,
        "logits_start": 0,
        "logits_row": 4,
        "logits_class": 1,
        "targets_start": 0,
        "targets_row": 1,
    }
    if file == "cross_entropy":
        out = run(
            gpu, file, {"logits": x, "targets": targets, "out": Out((9,))}, 2, constants={"WORKGROUP": 8}, sizes=sizes
        )
        want = reference.cross_entropy(x.astype(np.float64), targets)
    else:
        text = "fn cotangent(row: u32) -> f32 { return f32(row) + 1.0; }"
        out = run(
            gpu,
            file,
            {"logits": x, "targets": targets, "out": Out((9, 4))},
            2,
            constants={"WORKGROUP": 8},
            sizes=sizes,
            text=text,
        )
        want = reference.cross_entropy_grad(np.arange(1.0, 10.0), x.astype(np.float64), targets)
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-5)


def test_a_body_without_all_that_it_needs_is_refused_by_name(gpu: Gpu) -> None:
    assert needs("map") == ["WORKGROUP", "steps", "compute"]
    with pytest.raises(AssertionError, match=r"map needs \['steps', 'compute'\]"):
        run(gpu, "map", {"out": Out((1,))}, 1, constants={"WORKGROUP": 1})
