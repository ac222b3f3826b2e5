"""Kernels in halves as text: each load is widened, each store is rounded, and nothing else changes."""

from __future__ import annotations

import pytest

from wgpu_nn.dtype import F16, F32, I32, DType
from wgpu_nn.errors import KindError
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels import whole
from wgpu_nn.kernels.storage import stored


def text(code: str, *types: DType) -> str:
    """Return what becomes of ``code``, whose bindings x, y, .. have these types, without the bindings."""
    head = "".join(
        f"@group(0) @binding({n}) var<storage, read_write> {name}: array<{element}>;\n"
        for n, (name, element) in enumerate((("x", "f32"), ("y", "vec4f"), ("w", "u32")))
    )
    kernel = Kernel("name", head + code, "rrr", False, "source")
    views = [whole((4,), t, None) for t in (*types, *[F32] * (3 - len(types)))]
    out = stored(kernel, views, native=True)
    assert out.code.count("\n") == kernel.code.count("\n")
    return out.code.partition("\n")[2].split("\n", 2)[2] if types else out.code


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("let a = x[i];", "let a = f32(x[i]);"),
        ("x[i] = a;", "x[i] = f16(a);"),
        ("x[i + 1u] = f(x[i], b[j]);", "x[i + 1u] = f16(f(f32(x[i]), b[j]));"),
        ("let a = x[u32(x[i])];", "let a = f32(x[u32(f32(x[i]))]);"),
        ("if (x[i] == 0.0) { x[j] = 1.0; }", "if (f32(x[i]) == 0.0) { x[j] = f16(1.0); }"),
        ("let a = max[i] + xx[i]; // x[i] = 3", "let a = max[i] + xx[i]; // x[i] = 3"),
        ("let n = arrayLength(&x);", "let n = arrayLength(&x);"),
    ],
)
def test_elements_are_converted_where_they_are_loaded_and_stored(before: str, after: str) -> None:
    assert text(before, F16) == after


def test_vectors_words_and_other_bindings_have_conversions_of_their_own() -> None:
    assert text("let a = y[i].x + x[i];", F32, F16) == "let a = vec4f(y[i]).x + x[i];"
    assert text("y[i] = vec4(a, b, c, d);", F32, F16) == "y[i] = vec4<f16>(vec4(a, b, c, d));"
    assert text("let a = y[i / 4u][i % 4u];", F32, F16) == "let a = vec4f(y[i / 4u])[i % 4u];"
    assert text("let a = w[i] & 1u;", F32, F32, F16) == "let a = bitcast<u32>(f32(w[i])) & 1u;"


def test_what_binds_no_halves_is_the_same_kernel() -> None:
    kernel = Kernel("name", "x[i]", "r", False, "source")
    assert stored(kernel, [whole((4,), I32, None)], native=True) is kernel


def test_memory_that_has_no_halves_is_refused_by_name() -> None:
    code = "@group(0) @binding(0) var<storage, read> x: array<Acc>;\n"
    with pytest.raises(KindError, match="x of a type that has halves, got Acc"):
        stored(Kernel("name", code, "r", False, "source"), [whole((4,), F16, None)], native=True)


def test_without_f16_halves_are_packed_in_words_and_stored_without_touching_the_neighbour() -> None:
    head = (
        "@group(0) @binding(0) var<storage, read> x: array<f32>;\n"
        "@group(0) @binding(1) var<storage, read_write> y: array<f32>;\n"
        "@group(0) @binding(2) var<storage, read_write> z: array<vec4f>;\n"
    )
    kernel = Kernel("name", f"{head}y[i] = x[i] + y[i];\nz[i] = z[i] * 2.0;\n", "rww", False, "source")
    code = stored(kernel, [whole((4,), F16, None)] * 3, native=False).code
    assert "f16" not in code
    assert "x: array<u32>" in code and "y: array<atomic<u32>>" in code and "z: array<vec2u>" in code
    assert "store_y(u32(i), load_x(u32(i)) + load_y(u32(i)));\nstore_z(u32(i), load_z(u32(i)) * 2.0);\n" in code
    assert code.count("fn ") == 5 and "atomicAnd" in code and "atomicOr" in code
