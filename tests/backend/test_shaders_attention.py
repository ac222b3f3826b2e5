"""The WGSL bodies of attention, each by itself, trusted and checked, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.shader_bench import Out, run
from wgpu_nn import Device
from wgpu_nn.backends import numpy_attention as reference
from wgpu_nn.gpu import Gpu

pytestmark = pytest.mark.usefixtures("trust")
SCALE = 0.4
# Queries and keys of three heads, contiguous; rows of whole vectors.
COMMON = f"""fn hidden(x: u32) -> u32 {{ return x; }}
fn scale() -> f32 {{ return {SCALE}; }}
fn row_block(i: u32) -> u32 {{ return blocks() - 1u - i; }}
fn mask_start(head: u32) -> u32 {{ return 0u; }}
fn score(start: u32, row: u32, column: u32, s: f32) -> f32 {{
    if (row >= rows() || column >= columns() || barred(row, column)) {{ return -infinity(); }}
    return s * scale();
}}
"""
CAUSAL = """fn barred(row: u32, column: u32) -> bool { return column > row; }
fn column_begin(first: u32) -> u32 { return 0u; }
fn column_end(first: u32) -> u32 { return min(columns(), first + side()); }
fn inside(first: u32, column: u32) -> bool { return column + across() <= columns() && column + across() <= first + 1u; }
"""
# The same seen from the keys.
TURNED = """fn barred(row: u32, column: u32) -> bool { return row > column; }
fn column_begin(first: u32) -> u32 { return first; }
fn column_end(first: u32) -> u32 { return columns(); }
fn inside(first: u32, column: u32) -> bool { return column + across() <= columns() && first + side() <= column + 1u; }
"""


@pytest.fixture
def gpu(gpu_device: Device) -> Gpu:
    return gpu_device.gpu


def given(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def loads(roles: dict[str, str], tiled: bool, depth: int = 4, values: int = 4) -> str:
    """Return how a body reads [heads, rows, features] arrays of vectors in their roles; tiles know 4 features only."""
    lines: list[str] = []
    for role, name in roles.items():
        count = "rows()" if role in "xu" else "columns()"
        lines.append(f"fn {role}_start(head: u32) -> u32 {{ return head * {count}; }}")
        if not tiled:
            quads = (depth if name in "qk" else values) // 4
            place = f"(start + i) * {quads}u + f"
            lines.append(f"fn {role}_at(start: u32, i: u32, f: u32) -> vec4f {{ return {name}[{place}]; }}")
        elif role == "z":
            row = f"let row = {name}[start + min(i, {count} - 1u)];"
            lanes = ", ".join(
                f"select(0.0, row[min(f + {j}u, 3u)], i < {count} && f + {j}u < 4u)" for j in range(0, 64, 16)
            )
            lines.append(f"fn z_load(start: u32, i: u32, f: u32) -> vec4f {{ {row} return vec4f({lanes}); }}")
        else:
            lanes = ", ".join(
                f"select(0.0, {name}[start + min(i + {j}u, {count} - 1u)][min(f, 3u)], i + {j}u < {count} && f < 4u)"
                for j in range(0, 64, 16)
            )
            lines.append(f"fn {role}_load(start: u32, i: u32, f: u32) -> vec4f {{ return vec4f({lanes}); }}")
    return "\n".join(lines)


def store(tiled: bool, width: int = 4) -> str:
    if tiled:
        return """fn store(head: u32, row: u32, column: u32, v: f32) {
            if (column < 4u) { out[(head * rows() + row) * 4u + column] = v; }
        }"""
    return f"""fn store(head: u32, row: u32, column: u32, v: vec4f) {{
            let at = (head * rows() + row) * {width}u + column;
            for (var j = 0u; j < 4u && column < {width}u; j++) {{ out[at + j] = v[j]; }}
        }}"""


# Rows and columns of a block.
BLOCKS = {"": (4, 4), "tile": (64, 64), "block": (128, 64)}


def launched(
    kind: str, heads: int, rows: int, depth: int = 4, values: int = 4, width: int = 4
) -> tuple[tuple[int, int, int], dict[str, int], dict[str, int | bool]]:
    """Return the workgroups to launch, the sizes, and the constants of a body."""
    side, across = BLOCKS[kind]
    blocks = -(-rows // side)
    quads = {"DEPTH_QUADS": depth // 4, "WIDTH_QUADS": width // 4, "VALUE_QUADS": values // 4}
    constants: dict[str, dict[str, int | bool]] = {
        "": {"WORKGROUP": 8, **quads},
        "tile": {"CHUNK": 16, "WIDE": 1, "PARTS": 1, "DEPTH": 4, "VALUES": 4},
        "block": {"PARTS": 1, **quads},
    }
    groups = heads * blocks if kind else -(-heads * blocks // 8)
    sizes = {"items": heads * blocks, "blocks": blocks, "side": side, "across": across}
    return (2, groups // 2 + 1, 1), sizes, constants[kind]


def kind_of(file: str, gpu: Gpu) -> str:
    """Return the kind of a body; skip it where it needs more workgroup memory than the adapter has."""
    kind = file.removeprefix("attention").removeprefix("_grad").removeprefix("_")
    if kind == "block" and gpu.limits["max-compute-workgroup-storage-size"] < 24576:
        pytest.skip("the adapter has less than 24 KiB of workgroup memory")
    return kind


# Features of queries and keys, and of values: a vector, and more than one.
def bodies(name: str) -> list[tuple[str, int, int]]:
    return [(name, 4, 4), (name, 8, 12), (f"{name}_tile", 4, 4), (f"{name}_block", 4, 4), (f"{name}_block", 8, 12)]


@pytest.mark.parametrize("lengths", [(5, 7), (70, 66), (1, 1), (131, 140)], ids=str)
@pytest.mark.parametrize("file, depth, values", bodies("attention"))
def test_attention_keeps_a_running_maximum_and_sum(
    file: str, depth: int, values: int, lengths: tuple[int, int], gpu: Gpu
) -> None:
    queries, keys = lengths
    kind = kind_of(file, gpu)
    tiled = kind == "tile"
    q, k, v = given(1, 3, queries, depth), given(1, 3, keys, depth, seed=1), given(1, 3, keys, values, seed=2)
    groups, sizes, constants = launched(kind, 3, queries, depth, values, values)
    behind = f"out[{3 * queries * values}u + head * rows() + row] = v;"
    text = [COMMON, CAUSAL, loads({"x": "q", "y": "k", "z": "v"}, tiled, depth, values), store(tiled, values)]
    text.append(f"fn store_lse(head: u32, row: u32, v: f32) {{ {behind} }}")
    out = run(
        gpu,
        file,
        {"q": q, "k": k, "v": v, "out": Out((3 * queries * (values + 1),))},
        groups,
        constants=constants,
        sizes={**sizes, "rows": queries, "columns": keys},
        text="\n".join(text),
        elements={"q": "vec4f", "k": "vec4f", "v": "vec4f"},
    )
    want = reference.attention(q.astype(np.float64), k, v, scale=SCALE, causal=True)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=5e-6)


ROLES = {
    "q": {"x": "q", "y": "k", "u": "g", "w": "v", "z": "k"},
    "k": {"x": "k", "y": "q", "u": "v", "w": "g", "z": "q"},
    "v": {"x": "k", "y": "q", "u": "v", "w": "g", "z": "g"},
}


@pytest.mark.parametrize("lengths", [(5, 7), (70, 66), (140, 131)], ids=str)
@pytest.mark.parametrize("of", "qkv")
@pytest.mark.parametrize("file, depth, values", bodies("attention_grad"))
def test_gradients_make_the_weights_anew(
    file: str, depth: int, values: int, of: str, lengths: tuple[int, int], gpu: Gpu
) -> None:
    queries, keys = lengths
    kind = kind_of(file, gpu)
    tiled = kind == "tile"
    width = values if of == "v" else depth
    q, k, v = given(1, 3, queries, depth), given(1, 3, keys, depth, seed=1), given(1, 3, keys, values, seed=2)
    g, lse, delta = given(1, 3, queries, values, seed=3), given(1, 3, queries, seed=4) + 3, given(1, 3, queries, seed=5)
    rows, columns = (queries, keys) if of == "q" else (keys, queries)
    groups, sizes, constants = launched(kind, 3, rows, depth, values, width)
    text = [
        COMMON,
        CAUSAL if of == "q" else TURNED,
        loads(ROLES[of], tiled, depth, values),
        store(tiled, width),
        "fn members() -> u32 { return 1u; }",
        "fn query_head(item: u32, member: u32) -> u32 { return item + member; }",
        f"fn lse_at(head: u32, i: u32) -> f32 {{ return lse[head * {queries}u + min(i, {queries - 1}u)]; }}",
        f"fn delta_at(head: u32, i: u32) -> f32 {{ return delta[head * {queries}u + min(i, {queries - 1}u)]; }}",
    ]
    out = run(
        gpu,
        file,
        {"q": q, "k": k, "v": v, "g": g, "lse": lse, "delta": delta, "out": Out((3, rows, width))},
        groups,
        constants={**constants, "SCORES": of != "v", "BY_ROW": of == "q"},
        sizes={**sizes, "rows": rows, "columns": columns},
        text="\n".join(text),
        elements=dict.fromkeys("qkvg", "vec4f"),
    )
    wide = q.astype(np.float64)
    options = {"scale": SCALE, "causal": True}
    want = {
        "q": lambda: reference.attention_grad_q(g, wide, k, v, lse, delta, **options),
        "k": lambda: reference.attention_grad_k(g, wide, k, v, lse, delta, **options),
        "v": lambda: reference.attention_grad_v(g, wide, k, lse, **options),
    }[of]()
    # Sums of up to 140 terms, of which many are as large as the largest result.
    np.testing.assert_allclose(out, want[0], rtol=1e-5, atol=2e-6 * max(5, np.abs(want[0]).max()))
