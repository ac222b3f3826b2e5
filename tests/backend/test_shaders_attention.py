"""The WGSL bodies of attention, each by itself, trusted and checked, against NumPy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from tests.shader_bench import Out, run
from wgpu_nn import Device
from wgpu_nn.backends import numpy_attention as reference
from wgpu_nn.gpu import Gpu

pytestmark = pytest.mark.usefixtures("trust")
SCALE = 0.4
HEADS, SHARED = 4, 2  # heads of queries, and those of keys, each for two of them
# With `causal` a query attends to no key behind it, every fifth one to none, and scores differ by head; without it there is
# no mask, and whole blocks of columns need no look at each of them.
COMMON = f"""fn hidden(x: u32) -> u32 {{ return x; }}
fn scale() -> f32 {{ return {SCALE}; }}
fn row_block(i: u32) -> u32 {{ return blocks() - 1u - i; }}
fn mask_start(head: u32) -> u32 {{ return head * causal(); }}
fn barred(query: u32, key: u32) -> bool {{ return causal() == 1u && (key > query || query % 5u == 2u); }}
fn inside(first: u32, column: u32) -> bool {{ return causal() == 0u && column + across() <= columns(); }}
"""
SCORE = """fn score(start: u32, row: u32, column: u32, s: f32) -> f32 {
    if (row >= rows() || column >= columns() || barred(row, column)) { return -infinity(); }
    return s * scale() + 0.25 * f32(start) + peak(row, column);
}
"""
# Rows are queries, and columns keys.
BY_ROW = f"""{SCORE}
fn column_begin(first: u32) -> u32 {{ return 0u; }}
fn column_end(first: u32) -> u32 {{ return select(columns(), min(columns(), first + side()), causal() == 1u); }}
"""
# The other way around.
TURNED = f"""{SCORE.replace("barred(row, column)", "barred(column, row)")}
fn column_begin(first: u32) -> u32 {{ return first * causal(); }}
fn column_end(first: u32) -> u32 {{ return columns(); }}
"""


class Shape(NamedTuple):
    """Numbers of queries and of keys, features of both, and those of values."""

    queries: int
    keys: int
    depth: int
    values: int
    causal: bool = True


class Body(NamedTuple):
    """A body, and for tiles of 64 rows the steps in workgroup memory and the blocks of 64 features."""

    kind: str
    chunk: int = 0
    wide: int = 1

    @property
    def tiled(self) -> bool:
        return self.kind == "tile"


SHAPES = [
    Shape(40, 43, 4, 4),
    Shape(84, 92, 4, 4),
    Shape(1, 1, 4, 4),
    Shape(131, 140, 4, 4),
    Shape(119, 121, 4, 4, False),
]
NARROW = [(body, shape) for body in (Body(""), Body("tile", 16), Body("block")) for shape in SHAPES]
# More features than a workgroup has at a time; a part of the last block of 64.
WIDE = [(Body(""), Shape(6, 9, 12, 20))]
WIDE += [(body, Shape(35, 69, 132, 148)) for body in (Body("tile", 16, 2), Body("tile", 32), Body("block"))]
ROWS = pytest.mark.parametrize(("body", "shape"), NARROW + WIDE, ids=str)
# Rows and columns of a block, and its bytes of workgroup memory.
BLOCKS = {"": (4, 4), "tile": (64, 64), "block": (128, 64)}


@pytest.fixture
def gpu(gpu_device: Device) -> Gpu:
    return gpu_device.gpu


def given(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def loads(roles: dict[str, str], shape: Shape, tiled: bool, own: dict[str, str]) -> str:
    """Return how a body reads [heads, rows, features / 4] arrays of vectors in their roles; ``own`` are heads' numbers."""
    lines: list[str] = []
    for role, name in roles.items():
        count = "rows()" if role in "xu" else "columns()"
        features = shape.depth if name in "qk" else shape.values
        quads = features // 4
        lines.append(f"fn {role}_start(head: u32) -> u32 {{ return {own[name]} * {count} * {quads}u; }}")
        if not tiled:
            lines.append(
                f"fn {role}_at(start: u32, i: u32, f: u32) -> vec4f {{ return {name}[start + i * {quads}u + f]; }}"
            )
            continue
        lines.append(
            f"""fn {role}_one(start: u32, i: u32, f: u32) -> f32 {{
                if (i >= {count} || f >= {features}u) {{ return 0.0; }}
                return {name}[start + i * {quads}u + f / 4u][f % 4u];
            }}"""
        )
        moved = "i, f + {0}u" if role == "z" else "i + {0}u, f"
        lanes = ", ".join(f"{role}_one(start, {moved.format(j)})" for j in range(0, 64, 16))
        lines.append(f"fn {role}_load(start: u32, i: u32, f: u32) -> vec4f {{ return vec4f({lanes}); }}")
    return "\n".join(lines)


def store(tiled: bool, width: int) -> str:
    at = f"(head * rows() + row) * {width}u + column"
    if tiled:
        return f"fn store(head: u32, row: u32, column: u32, v: f32) {{ if (column < {width}u) {{ out[{at}] = v; }} }}"
    return f"""fn store(head: u32, row: u32, column: u32, v: vec4f) {{
        for (var j = 0u; j < 4u && column < {width}u; j++) {{ out[{at} + j] = v[j]; }}
    }}"""


def launched(
    body: Body, shape: Shape, heads: int, rows: int, width: int
) -> tuple[int, dict[str, int], dict[str, int | bool]]:
    """Return the workgroups to launch, the sizes, and the constants of a body."""
    side, across = BLOCKS[body.kind]
    blocks = -(-rows // side)
    quads = {"DEPTH_QUADS": shape.depth // 4, "WIDTH_QUADS": width // 4, "VALUE_QUADS": shape.values // 4}
    parts = -(-width // (64 * body.wide)) if body.kind else 1
    constants: dict[str, dict[str, int | bool]] = {
        "": {"WORKGROUP": 2, **quads},
        "tile": {"CHUNK": body.chunk, "WIDE": body.wide, "DEPTH": shape.depth, "VALUES": shape.values, "PARTS": parts},
        "block": {"PARTS": parts, **quads},
    }
    items = heads * blocks * parts
    sizes = {"items": items, "blocks": blocks, "side": side, "across": across, "causal": int(shape.causal)}
    return items if body.kind else -(-items // 2), sizes, constants[body.kind]


def fits(body: Body, gpu: Gpu) -> None:
    """Skip a body that needs more workgroup memory than the adapter has."""
    needed = {"": 0, "tile": (2 + body.wide) * body.chunk * 17 * 16, "block": 24576}[body.kind]
    if gpu.limits["max-compute-workgroup-storage-size"] < needed:
        pytest.skip(f"the adapter has less than {needed} bytes of workgroup memory")


def operands(shape: Shape) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Return queries, keys, values, and the mask that goes with the header's."""
    q = given(1, HEADS, shape.queries, shape.depth) * np.float32(shape.depth**-0.5)
    k, v = given(1, SHARED, shape.keys, shape.depth, seed=1), given(1, SHARED, shape.keys, shape.values, seed=2)
    if not shape.causal:
        return q, k, v, None
    mask = np.zeros((1, HEADS, shape.queries, shape.keys)) + np.arange(HEADS)[:, None, None] / 4
    mask[:, :, 2::5] = -np.inf
    return q, k, v, mask


@ROWS
def test_attention_keeps_a_running_maximum_and_sum(body: Body, shape: Shape, gpu: Gpu) -> None:
    fits(body, gpu)
    q, k, v, mask = operands(shape)
    groups, sizes, constants = launched(body, shape, HEADS, shape.queries, shape.values)
    behind = f"out[{HEADS * shape.values}u * rows() + head * rows() + row] = v;"
    own = {"q": "head", "k": "(head / 2u)", "v": "(head / 2u)"}
    text = [
        COMMON,
        BY_ROW,
        loads({"x": "q", "y": "k", "z": "v"}, shape, body.tiled, own),
        store(body.tiled, shape.values),
    ]
    text.append(f"fn store_lse(head: u32, row: u32, v: f32) {{ {behind} }}")
    # In every other row one score is so large that exponentials overflow if they are not relative to it.
    text.append("""fn peak(row: u32, column: u32) -> f32 {
        return select(0.0, 100.0, causal() == 1u && row % 2u == 1u && column == (row * 7u + 3u) % columns());
    }""")
    if mask is not None:
        odd = np.arange(1, shape.queries, 2)
        mask[:, :, odd, (odd * 7 + 3) % shape.keys] += 100
    out = run(
        gpu,
        f"attention_{body.kind}".rstrip("_"),
        {"q": q, "k": k, "v": v, "out": Out((HEADS * shape.queries * (shape.values + 1),))},
        groups,
        constants=constants,
        sizes={**sizes, "rows": shape.queries, "columns": shape.keys},
        text="\n".join(text),
        elements={"q": "vec4f", "k": "vec4f", "v": "vec4f"},
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        want = reference.attention(q.astype(np.float64), k, v, mask, scale=SCALE, causal=shape.causal)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=5e-6)


ROLES = {
    "q": {"x": "q", "y": "k", "u": "g", "w": "v", "z": "k"},
    "k": {"x": "k", "y": "q", "u": "v", "w": "g", "z": "q"},
    "v": {"x": "k", "y": "q", "u": "v", "w": "g", "z": "g"},
}


@ROWS
@pytest.mark.parametrize("of", "qkv")
def test_gradients_make_the_weights_anew(of: str, body: Body, shape: Shape, gpu: Gpu) -> None:
    fits(body, gpu)
    q, k, v, mask = operands(shape)
    queries, keys = shape.queries, shape.keys
    g = given(1, HEADS, queries, shape.values, seed=3)
    lse, delta = given(1, HEADS, queries, seed=4) + 3, given(1, HEADS, queries, seed=5)
    lse[:, :, 2::5] = -np.inf if shape.causal else lse[:, :, 2::5]
    by_row = of == "q"
    of_query = "rows()" if by_row else "columns()"
    (rows, columns), heads = ((queries, keys), HEADS) if by_row else ((keys, queries), SHARED)
    width = shape.values if of == "v" else shape.depth
    groups, sizes, constants = launched(body, shape, heads, rows, width)
    text = [
        COMMON,
        BY_ROW if by_row else TURNED,
        loads(ROLES[of], shape, body.tiled, {"q": "head", "g": "head", "k": "(head / 2u)", "v": "(head / 2u)"}),
        store(body.tiled, width),
        "fn peak(row: u32, column: u32) -> f32 { return 0.0; }",
        f"fn members() -> u32 {{ return {1 if by_row else HEADS // SHARED}u; }}",
        f"fn query_head(item: u32, member: u32) -> u32 {{ return item{'' if by_row else ' * 2u'} + member; }}",
        f"fn lse_at(head: u32, i: u32) -> f32 {{ return lse[head * {of_query} + min(i, {of_query} - 1u)]; }}",
        f"fn delta_at(head: u32, i: u32) -> f32 {{ return delta[head * {of_query} + min(i, {of_query} - 1u)]; }}",
    ]
    out = run(
        gpu,
        f"attention_grad_{body.kind}".rstrip("_"),
        {"q": q, "k": k, "v": v, "g": g, "lse": lse, "delta": delta, "out": Out((heads, rows, width))},
        groups,
        constants={**constants, "SCORES": of != "v", "BY_ROW": by_row},
        sizes={**sizes, "rows": rows, "columns": columns},
        text="\n".join(text),
        elements=dict.fromkeys("qkvg", "vec4f"),
    )
    wide = q.astype(np.float64)
    options = {"scale": SCALE, "causal": shape.causal}
    with np.errstate(invalid="ignore"):
        want = {
            "q": lambda: reference.attention_grad_q(g, wide, k, v, lse, delta, mask, **options),
            "k": lambda: reference.attention_grad_k(g, wide, k, v, lse, delta, mask, **options),
            "v": lambda: reference.attention_grad_v(g, wide, k, lse, mask, **options),
        }[of]()
    np.testing.assert_allclose(out, want[0], rtol=1e-5, atol=1e-5 * max(1, np.abs(want).max()))
