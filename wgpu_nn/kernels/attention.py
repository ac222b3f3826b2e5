"""Plans fused attention and its gradients: blocks of scores in workgroup memory on GPUs, in registers on software adapters.

Four ops share two bodies an adapter kind. They differ in the roles of the operands: scores are the products x y of rows and
columns, cotangents of weights the products u w, and z is what is summed, a column at a time. Bodies compute in f32; loads
and stores are the header's, where other element types would come in. The gradients of keys and of values are kernels of
their own: each then has one result and half the accumulators, for eight products of blocks in all instead of seven.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from wgpu_nn.dtype import Float
from wgpu_nn.errors import DeviceLimitError
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.map import contiguous, run_map
from wgpu_nn.kernels.plan import MOST_TURNS, Site, Task, View, Words, bits, chosen, grid
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.shape import Shape, broadcast_strides, size

# Per op: its operands but for the mask, and the operand in each role; rows are queries, or else keys.
OPERANDS = {
    "attention": ("q", "k", "v"),
    "attention_grad_q": ("g", "q", "k", "v", "lse", "delta"),
    "attention_grad_k": ("g", "q", "k", "v", "lse", "delta"),
    "attention_grad_v": ("g", "q", "k", "lse"),
}
ROLES = {
    "attention": {"x": "q", "y": "k", "z": "v"},
    "attention_grad_q": {"x": "q", "y": "k", "u": "g", "w": "v", "z": "k"},
    "attention_grad_k": {"x": "k", "y": "q", "u": "v", "w": "g", "z": "q"},
    "attention_grad_v": {"x": "k", "y": "q", "z": "g"},
}
BY_ROW = ("attention", "attention_grad_q")
ROWS = ("lse", "delta")  # operands with one number a query
TEAM = 128  # invocations of a tile's workgroup
BLOCK_BYTES = 24 * 1024  # of workgroup memory for a tile of 128 rows


class Tile(NamedTuple):
    """How a workgroup shares a block of 64 or 128 rows; the bodies, _tile and _block, have the layouts."""

    rows: int
    chunk: int  # steps of an inner axis in workgroup memory
    wide: int  # blocks of 64 features of the result
    parts: int  # workgroups that share the features of a block of rows


class AttentionKey(NamedTuple):
    """What distinguishes attention kernels: sizes of heads, but neither numbers of queries and keys nor of heads."""

    op: str
    depth: int  # features of queries and keys
    values: int
    causal: bool
    mask: str  # element type of the mask, or nothing
    quads: bool  # whether four features are loaded at once; tiles of 64 rows load by single ones, of neighbours
    tile: Tile | None
    workgroup: int

    @property
    def width(self) -> int:
        """The features of the result."""
        return self.values if self.op in ("attention", "attention_grad_v") else self.depth

    @property
    def body(self) -> str:
        """What the file's name ends with."""
        return "" if self.tile is None else "_block" if self.tile.rows == 128 else "_tile"

    @property
    def rows(self) -> int:
        """The rows of a block."""
        return self.tile.rows if self.tile else 4

    @property
    def columns(self) -> int:
        """The columns of a block."""
        return 64 if self.tile else 4


def _ways(site: Site, rows: int, width: int) -> dict[str, tuple[Tile | None, int]]:
    """Return by name the tiles that fit the device's workgroup memory, the best for so many rows first, or without one
    the workgroups of a body that needs none."""
    found: list[Tile] = []
    blocks = -(-width // 64)
    if not site.target.software and site.target.invocations >= TEAM:
        if rows > 64 and site.target.storage >= BLOCK_BYTES:
            found.append(Tile(128, 32, 1, blocks))
        for chunk, wide in ((32, 2), (16, 2), (32, 1), (16, 1)):
            if wide <= blocks and (2 + wide) * chunk * 17 * 16 <= site.target.storage:
                found.append(Tile(64, chunk, wide, -(-blocks // wide)))
    if found:
        return {f"{t.rows} rows, {t.chunk} steps, {t.wide} wide": (t, TEAM) for t in found[:4]}
    sizes = (32, 8, 64) if site.target.software else (min(64, site.target.invocations),)
    return {f"workgroups of {n}": (None, n) for n in sizes}


def _start(name: str) -> str:
    """Return where a head of the queries finds its rows of an operand."""
    head = "head % heads() / sharing()" if name in "kv" else "head % heads()"
    place = f"{name}_offset() + head / heads() * {name}_batch() + {head} * {name}_head()"
    return f"fn {name}_start(head: u32) -> u32 {{ return {place}; }}"


def _load(key: AttentionKey) -> str:
    """Return how a body names its loads: of four neighbouring features ``at``, or ``load``, of four elements 16 apart."""
    return "load" if key.body == "_tile" else "at"


def _loads(role: str, name: str, key: AttentionKey) -> list[str]:
    """Return how a body reads the operand ``name`` in its role: where a head starts, and four elements."""
    features = key.depth if name in "qk" else key.values
    lines = [
        f"fn {role}_start(head: u32) -> u32 {{ return {name}_start(head); }}",
        f"fn {role}_{_load(key)}(start: u32, i: u32, feature: u32) -> vec4f {{",
    ]
    if key.quads:
        return [*lines, f"    return {name}[(start + i * {name}_row()) / 4u + feature];", "}"]
    row, column = ("i", f"{name}_row()"), ("feature", f"{name}_element()")
    ends = {"i": "rows()" if role in "xu" else "columns()", "feature": f"{features}u"}
    if _load(key) == "at":
        # Four neighbouring features of a row that exists; zeros beyond the last.
        (fixed, pitch), (moving, step), distance = row, column, 1
        lines.append(f"    let first = 4u * {moving};")
    else:
        # Four elements 16 apart, of rows at one feature or of features in one row; zeros beyond the ends.
        (fixed, pitch), (moving, step), distance = (row, column, 16) if role == "z" else (column, row, 16)
        lines += [f"    if ({fixed} >= {ends[fixed]}) {{ return vec4f(); }}", f"    let first = {moving};"]
    end = ends[moving]
    lanes = ", ".join(
        f"select(0.0, {name}[at + min(first + {j}u, {end} - 1u) * {step}], first + {j}u < {end})"
        for j in range(0, 4 * distance, distance)
    )
    return [*lines, f"    let at = start + {fixed} * {pitch};", f"    return vec4f({lanes});", "}"]


def _rows(name: str) -> str:
    """Return how a body reads an operand with one number a query; beyond the last it reads that."""
    at = f"{name}_offset() + head * queries() + min(i, queries() - 1u)"
    return f"fn {name}_at(head: u32, i: u32) -> f32 {{ return {name}[{at}]; }}"


def _absent(key: AttentionKey) -> list[str]:
    """Return what stands for the operands that only cotangents of scores need."""
    load = _load(key)
    lines = ["fn delta_at(head: u32, i: u32) -> f32 { return 0.0; }"]
    for role in "uw":
        lines.append(f"fn {role}_start(head: u32) -> u32 {{ return 0u; }}")
        lines.append(f"fn {role}_{load}(start: u32, i: u32, feature: u32) -> vec4f {{ return vec4f(); }}")
    return lines


def _stores(key: AttentionKey) -> list[str]:
    """Return how a body writes its result, and the log-sum-exps behind it."""
    start = f"let at = (head * rows() + row) * {key.width}u + column;"
    parts = key.tile.parts if key.tile else 1
    if _load(key) == "load":
        type_, store = "f32", f"if (column < {key.width}u) {{ out[at] = v; }}"
    else:
        type_ = "vec4f"
        store = " ".join(
            f"if (column + {j}u < {key.width}u) {{ out[at + {j}u] = v.{lane}; }}" for j, lane in enumerate("xyzw")
        )
    lines = [f"fn store(head: u32, row: u32, column: u32, v: {type_}) {{ {start} {store} }}"]
    if key.op == "attention":
        behind = f"items() / (blocks() * {parts}u) * rows() * {key.width}u"
        lines.append(f"fn store_lse(head: u32, row: u32, v: f32) {{ out[{behind} + head * rows() + row] = v; }}")
    return lines


def _score(key: AttentionKey) -> list[str]:
    """Return what a score is, and which blocks of columns a block of rows needs, and needs no mask for."""
    by_row, rows, columns = key.op in BY_ROW, key.rows, key.columns
    query, other = ("row", "column") if by_row else ("column", "row")
    masked = {
        "": "s * scale()",
        "f32": "s * scale() + mask[at]",
        "bool": "select(-infinity(), s * scale(), mask[at] != 0u)",
    }[key.mask]
    ahead = "other > query" if key.causal else "false"
    at = "    let at = start + query * mask_query() + other * mask_key();"
    begin, end = "0u", "columns()"
    clear = f"column + {columns}u <= columns()"
    if key.causal and by_row:
        end, clear = f"min(columns(), first + {rows}u)", f"{clear} && column + {columns - 1}u <= first"
    elif key.causal:
        begin, clear = "first", f"{clear} && first + {rows - 1}u <= column"
    start = "mask_offset() + head / heads() * mask_batch() + head % heads() * mask_head()" if key.mask else "0u"
    return [
        f"fn mask_start(head: u32) -> u32 {{ return {start}; }}",
        "fn score(start: u32, row: u32, column: u32, s: f32) -> f32 {",
        f"    let query = {query};",
        f"    let other = {other};",
        f"    if (row >= rows() || column >= columns() || {ahead}) {{ return -infinity(); }}",
        *([at] if key.mask else []),
        f"    return {masked};",
        "}",
        f"fn column_begin(first: u32) -> u32 {{ return {begin}; }}",
        f"fn column_end(first: u32) -> u32 {{ return {end}; }}",
        f"fn inside(first: u32, column: u32) -> bool {{ return {'false' if key.mask else clear}; }}",
        # Under a causal mask the last queries have most to do; they begin.
        f"fn row_block(i: u32) -> u32 {{ return {'blocks() - 1u - i' if key.causal and by_row else 'i'}; }}",
    ]


def _names(key: AttentionKey) -> list[str]:
    """Return the names of a launch's words, in the order in which ``run_attention`` gives their values."""
    names = ["items", "blocks", "heads", "sharing", "queries", "keys", "scale_word"]
    for name in OPERANDS[key.op]:
        parts = ("offset",) if name in ROWS else ("offset", "batch", "head", "row", "element")
        names += [f"{name}_{part}" for part in parts]
    return names + [f"mask_{part}" for part in ("offset", "batch", "head", "query", "key") if key.mask]


def _constants(key: AttentionKey) -> list[str]:
    """Return what the sizes of heads decide."""
    if key.tile and key.body == "_tile":
        numbers = {"CHUNK": key.tile.chunk, "WIDE": key.tile.wide, "PARTS": key.tile.parts, "DEPTH": key.depth}
        more = {"VALUES": key.values}
    else:
        quads = {"DEPTH": key.depth, "WIDTH": key.width}
        numbers = {"PARTS": key.tile.parts} if key.tile else {"WORKGROUP": key.workgroup}
        numbers |= {f"{n}_QUADS": -(-size // 4) for n, size in quads.items()}
        more = {"VALUE_QUADS": -(-key.values // 4)}
    found = numbers if key.op == "attention" else {**numbers, **more}
    return [f"const {name} = {value}u;" for name, value in found.items()]


@functools.cache
def attention_kernel(key: AttentionKey, values: Words | None) -> Kernel:
    """Return the kernel of attention, or of one of its gradients."""
    by_row, grad = key.op in BY_ROW, key.op != "attention"
    single = "vec4f" if key.quads else "f32"
    stored = [(n, "r", "f32" if n in ROWS else single) for n in OPERANDS[key.op]]
    stored += [("mask", "r", {"f32": "f32", "bool": "u32"}[key.mask])] if key.mask else []
    stored.append(("out", "w", "f32"))
    lines = [
        bindings(tuple(stored), values is None),
        words(tuple(_names(key)), values),
        *_constants(key),
        f"fn {'rows' if by_row else 'columns'}() -> u32 {{ return queries(); }}",
        f"fn {'columns' if by_row else 'rows'}() -> u32 {{ return keys(); }}",
        "fn scale() -> f32 { return bitcast<f32>(scale_word()); }",
        *_score(key),
        *(_rows(name) if name in ROWS else _start(name) for name in OPERANDS[key.op]),
        *(line for role, name in ROLES[key.op].items() for line in _loads(role, name, key)),
        *_stores(key),
    ]
    if grad:
        scores = "u" in ROLES[key.op]
        own = "item" if by_row else "item * sharing() + member"
        lines += [
            *([] if scores else _absent(key)),
            f"const SCORES = {str(scores).lower()};",
            f"const BY_ROW = {str(by_row).lower()};",
            f"fn members() -> u32 {{ return {'1u' if by_row else 'sharing()'}; }}",
            f"fn query_head(item: u32, member: u32) -> u32 {{ return {own}; }}",
        ]
    body = ("attention_grad" if grad else "attention") + key.body
    return assemble(key.op, body, "\n".join(lines), "".join(a for _, a, _ in stored), values is None)


def run_attention(site: Site, op: str, inputs: Sequence[Any], attrs: Mapping[str, Any], out: View) -> None:
    """Plan attention, or a gradient of it; operands as in OPERANDS, then a mask if there is one."""
    if out.size == 0:
        return
    views: dict[str, View] = dict(zip(OPERANDS[op], inputs))
    mask: View | None = inputs[len(OPERANDS[op])] if len(inputs) > len(OPERANDS[op]) else None
    for name in ROWS:
        if name in views:
            views[name] = contiguous(site, views[name])
    q, k = views["q"], views["k"]
    (batch, heads, queries, depth), (_, shared, keys, _) = q.shape, k.shape
    values: int = (views["v"] if "v" in views else views["g"]).shape[3]
    if q.size == 0 or keys == 0:
        _nothing(site, op, q.shape, values, out)
        return
    by_row, group = op in BY_ROW, heads // shared
    width = values if op in ("attention", "attention_grad_v") else depth
    rows, columns = (queries, keys) if by_row else (keys, queries)
    wide = [v for n, v in views.items() if n not in ROWS]
    fours = depth % 4 == 0 and values % 4 == 0 and all(_in_fours(v) for v in wide)
    if site.target.software:
        inner = -(-depth // 4) + (-(-values // 4) if "u" in ROLES[op] else 0) + -(-width // 4)
        _check_turns(op, -(-columns // 4) * (1 if by_row else group), inner + 1)
    places: list[int] = []
    for name, v in views.items():
        places += [v.offset] if name in ROWS else [v.offset, *v.strides]
    if mask is not None:
        places += [mask.offset, *broadcast_strides(mask.shape, mask.strides, (batch, heads, queries, keys))]

    def launch(way: tuple[Tile | None, int], site: Site, operands: Sequence[View]) -> None:
        tile, workgroup = way
        quads = fours and (tile is None or tile.rows == 128)
        key = AttentionKey(
            op, depth, values, attrs["causal"], mask.dtype.wide.name if mask else "", quads, tile, workgroup
        )
        blocks = -(-rows // key.rows)
        items = batch * (heads if by_row else shared) * blocks * (tile.parts if tile else 1)
        numbers = (items, blocks, heads, group, queries, keys, bits(attrs["scale"], q.dtype), *places)
        site.launch(attention_kernel, key, numbers, operands, grid(items if tile else -(-items // workgroup)))

    reads = (*views.values(), *([mask] if mask else []))
    found = _ways(site, rows, width)
    if mask is not None and mask.dtype.kind is not Float:
        found = dict(list(found.items())[:1])  # what a mask leaves to be done cannot be known
    traits = f"{op} {depth} to {values}{', causal' if attrs['causal'] else ''}{', masked' if mask else ''}"
    terms = columns * (depth + width) // width
    task = Task("attention", traits, (batch * heads, rows, columns), reads, (out,), terms)
    launch(chosen(site, task, found, launch), site, [*reads, out])


def _in_fours(x: View) -> bool:
    """Whether four neighbouring features of ``x`` can be loaded as a vector."""
    return x.strides[3] == 1 and all(n % 4 == 0 for n in (x.offset, *x.strides[:3]))


def _nothing(site: Site, op: str, shape: Shape, values: int, out: View) -> None:
    """Plan what is left without queries or keys: zeros, and -inf for the log of each empty sum."""
    run_map(site, "full", [0.0], out)
    if op == "attention":
        rows = size(shape[:3])
        run_map(site, "full", [float("-inf")], out.seen((rows,), (1,), rows * values))


def _check_turns(op: str, blocks: int, turns: int) -> None:
    """Raise if one invocation would loop longer than a software adapter lets it."""
    most = (2 * MOST_TURNS - 1) // turns
    if blocks > most:
        raise DeviceLimitError(
            f"{op}: expected at most {4 * most} keys, or queries of heads that share keys, of this size (llvmpipe's loop "
            f"limit), got {4 * blocks}; use a GPU, or the NumPy device"
        )
