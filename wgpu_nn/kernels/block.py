"""Writes the WGSL of block products: register tiles unrolled by hand, as compilers keep arrays of them in slow memory.

The text is a body like those in shaders/, and asks its header for the same names as shaders/matmul_tile.wgsl.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from wgpu_nn.kernels.plan import Target

WRITER = "wgpu_nn/kernels/block.py"
LANES = "xyzw"


class Block(NamedTuple):
    """The shape of a block product.

    Each of a workgroup's ``side_y`` (a multiple of 4) x ``side_x`` (of 8) invocations computes 4 ``high`` x 4 ``wide``
    outputs, ``step`` inner elements at a time.
    """

    side_y: int
    side_x: int
    high: int
    wide: int
    step: int
    a_by_inner: bool  # a is loaded in fours along the inner axis, else along its rows
    b_by_inner: bool

    @property
    def rows(self) -> int:
        """Rows of a workgroup's block."""
        return 4 * self.high * self.side_y

    @property
    def columns(self) -> int:
        """Columns of a workgroup's block."""
        return 4 * self.wide * self.side_x

    @property
    def threads(self) -> int:
        """Invocations of a workgroup."""
        return self.side_y * self.side_x

    @property
    def storage(self) -> int:
        """Bytes of workgroup memory."""
        pitch = _pitch(self.rows, self.a_by_inner) + _pitch(self.columns, self.b_by_inner)
        return 16 * self.step * pitch


LARGE = (
    16,
    8,
    2,
    4,
)  # 128 x 128 outputs, 8 x 16 an invocation: 47.7 TF/s at 4096 cubed on an H100, where cuBLAS has 50.4
WIDE = (8, 16, 2, 4)  # 64 x 256, for few rows
BROAD = (8, 16, 2, 2)  # 64 x 128, 8 x 8: 33.6 TF/s at 1024 cubed, where cuBLAS has 35.7
MIDDLE = (8, 8, 2, 2)  # 64 x 64, 8 x 8
SMALL = (8, 16, 2, 1)  # 64 x 64, 8 x 4: twice the invocations where there are few blocks
SHORTEST = 32  # inner elements below which a block's edges cost more than its reuse saves
FEWEST = 96  # blocks that are worth the choice of their size


def choose_block(
    target: Target, rows: int, columns: int, inner: int, batches: int, a_by_inner: bool, b_by_inner: bool
) -> Block | None:
    """Return the block for a product of this size on a GPU; None if it makes too few of any to keep one busy."""

    def count(high: int, wide: int) -> int:
        return -(-rows // high) * -(-columns // wide) * batches

    if target.software or target.invocations < 128 or min(rows, columns) <= 32 or inner < SHORTEST:
        return None
    if count(64, 64) < FEWEST:
        return None
    sides = SMALL if count(64, 64) < 2 * FEWEST else MIDDLE
    if rows <= 64 and count(64, 256) >= 2 * FEWEST:
        sides = WIDE
    elif min(rows, columns) > 64 and count(128, 128) >= 2 * FEWEST:
        sides = LARGE
    elif columns > 64 and count(64, 128) >= FEWEST:
        sides = BROAD
    block = Block(*sides, 16, a_by_inner, b_by_inner)
    return block if block.storage <= target.storage else block._replace(step=8)


def long_block(target: Target, rows: int, columns: int, a_by_inner: bool, b_by_inner: bool) -> Block | None:
    """Return the block for a product that is small but for its inner axis, whose slices then make it many."""
    if target.software or target.invocations < 128 or min(rows, columns) < 64:
        return None
    block = Block(*(LARGE if min(rows, columns) >= 128 else MIDDLE), 16, a_by_inner, b_by_inner)
    return block if block.storage <= target.storage else block._replace(step=8)


def fitting_blocks(
    target: Target, rows: int, columns: int, inner: int, a_by_inner: bool, b_by_inner: bool
) -> list[Block]:
    """Return the blocks that run on a GPU and waste less than they compute, the likely first: what is worth measuring."""
    found: list[Block] = []
    for sides, step in ((MIDDLE, 16), (BROAD, 16), (LARGE, 16), (WIDE, 16), (SMALL, 16), (LARGE, 8), (MIDDLE, 8)):
        block = Block(*sides, step, a_by_inner, b_by_inner)
        if block.storage > target.storage:
            block = block._replace(step=8)
        covered = -(-rows // block.rows) * block.rows * -(-columns // block.columns) * block.columns
        fits = not target.software and block.threads <= target.invocations and block.storage <= target.storage
        if fits and inner >= SHORTEST and covered <= 2 * rows * columns and block not in found:
            found.append(block)
    return found


def _pitch(edge: int, by_inner: bool) -> int:
    """Return the distance of inner steps in workgroup memory, in fours; scattered stores want another bank each."""
    return edge // 4 + (1 if by_inner else 0)


class _Operand(NamedTuple):
    """How the invocations load one operand into workgroup memory and read it back."""

    name: str
    edge: int
    side: int
    groups: int
    by_inner: bool
    lane: str  # x or y: the coordinate of the invocation that selects its part
    base: str  # m or n: the block's first row or column

    @property
    def pitch(self) -> int:
        return _pitch(self.edge, self.by_inner)

    def loads(self, block: Block) -> int:
        """Return how many fours each invocation loads a step."""
        return self.edge * block.step // 4 // block.threads

    def places(self, block: Block) -> list[str]:
        """Return the lines that say what an invocation loads: its row or column, and its inner step."""
        lines: list[str] = []
        for i in range(self.loads(block)):
            at = f"(local + {i * block.threads}u)"
            if self.by_inner:
                quads = block.step // 4
                lines.append(f"    let {self.name}j{i} = {at} / {quads}u; let {self.name}k{i} = {at} % {quads}u * 4u;")
            else:
                fours = self.edge // 4
                lines.append(f"    let {self.name}j{i} = {at} % {fours}u * 4u; let {self.name}k{i} = {at} / {fours}u;")
        return lines

    def fetch(self, block: Block, k: str) -> list[str]:
        """Return the lines that load the step at ``k`` into registers."""
        order = "{j}, {k}" if self.name == "a" else "{k}, {j}"
        return [
            f"next_{self.name}{i} = {self.name}_load({self.name}, "
            + order.format(j=f"{self.base} + {self.name}j{i}", k=f"{k} + {self.name}k{i}")
            + ");"
            for i in range(self.loads(block))
        ]

    def put(self, block: Block) -> list[str]:
        """Return the lines that store what was loaded."""
        lines: list[str] = []
        for i in range(self.loads(block)):
            j, k, v = f"{self.name}j{i}", f"{self.name}k{i}", f"next_{self.name}{i}"
            if self.by_inner:
                for n, lane in enumerate(LANES):
                    lines.append(f"tile_{self.name}[({k} + {n}u) * {self.pitch}u + {j} / 4u][{j} % 4u] = {v}.{lane};")
            else:
                lines.append(f"tile_{self.name}[{k} * {self.pitch}u + {j} / 4u] = {v};")
        return lines

    def read(self, k: int) -> str:
        """Return the line that reads the parts of one inner step."""
        return " ".join(
            f"let {self.name}{k}_{g} = tile_{self.name}[{k * self.pitch + g * self.side}u + {self.lane}];"
            for g in range(self.groups)
        )


@functools.cache
def block_body(block: Block, four: str = "vec4f", whole: bool = False) -> str:
    """Return the text of a body that computes a block a workgroup, in vectors of the type ``four``.

    Loads beyond the edges must give zeros, but if blocks and their steps divide the ``whole`` product.
    """
    a = _Operand("a", block.rows, block.side_y, block.high, block.a_by_inner, "y", "m")
    b = _Operand("b", block.columns, block.side_x, block.wide, block.b_by_inner, "x", "n")
    rows, columns = range(4 * block.high), range(block.wide)
    fetch = [*a.fetch(block, "k"), *b.fetch(block, "k")]
    # No branch around the loads of the next step, which compilers would not mix with the sums: the last step's are not used.
    ahead = f"min(k + {block.step}u, last - {block.step}u)" if whole else f"k + {block.step}u"
    compute: list[str] = []
    for k in range(block.step):
        compute += [a.read(k), b.read(k)]
        compute += [f"if (SUMS) {{ {' '.join(f'sums{g} += b{k}_{g};' for g in columns)} }}"]
        compute += [" ".join(f"c{i}_{g} += a{k}_{i // 4}.{LANES[i % 4]} * b{k}_{g};" for g in columns) for i in rows]

    def store() -> list[str]:
        lines: list[str] = []
        for i in rows:
            row = f"m + {i // 4 * 4 * block.side_y + i % 4}u + 4u * y"
            to = " ".join(f"c_store(c, {row}, n + {g * 4 * block.side_x}u + 4u * x, c{i}_{g});" for g in columns)
            lines.append(f"    if ({row} < rows()) {{ {to} }}")
        return lines

    sums = " ".join(f"sums_store(n + {g * 4 * block.side_x}u + 4u * x, sums{g});" for g in columns)

    def inside(lines: list[str], depth: int) -> list[str]:
        return ["    " * depth + line for line in lines]

    walk = [
        f"    for (; k < last; k += {block.step}u) {{",
        *inside([*a.put(block), *b.put(block)], 2),
        "        workgroupBarrier();",
        f"        let ahead = {ahead};",
        *inside([*a.fetch(block, "ahead"), *b.fetch(block, "ahead")], 2),
        *inside(compute, 2),
        "        workgroupBarrier();",
        "    }",
    ]
    lines = [
        f"// One workgroup computes {block.rows} x {block.columns} outputs, {4 * block.high} x {4 * block.wide} an invocation.",
        "// needs: rows, columns, inner, batches, slices, per_slice, a_start, b_start, c_start, a_load, b_load, c_store,",
        "// SUMS, sums_store",
        "",
        *(f"var<workgroup> tile_{op.name}: array<{four}, {block.step * op.pitch}>;" for op in (a, b)),
        "",
        f"@compute @workgroup_size({block.threads})",
        "fn main(",
        "    @builtin(workgroup_id) group: vec3u,",
        "    @builtin(num_workgroups) groups: vec3u,",
        "    @builtin(local_invocation_index) local: u32,",
        ") {",
        f"    let tiles_x = (columns() + {block.columns - 1}u) / {block.columns}u;",
        f"    let tiles_y = (rows() + {block.rows - 1}u) / {block.rows}u;",
        "    let flat = group.x + group.y * groups.x;",
        "    if (flat >= tiles_x * tiles_y * batches() * slices()) {",
        "        return;",
        "    }",
        "    let tile = flat % (tiles_x * tiles_y);",
        "    // Bands of eight rows of blocks: neighbours in time share operands, which then come from the cache.",
        "    let band = tile / (8u * tiles_x);",
        "    let band_rows = min(8u, tiles_y - band * 8u);",
        f"    let m = (band * 8u + (tile - band * 8u * tiles_x) % band_rows) * {block.rows}u;",
        f"    let n = (tile - band * 8u * tiles_x) / band_rows * {block.columns}u;",
        "    let batch = (flat / (tiles_x * tiles_y)) % batches();",
        "    let slice = flat / (tiles_x * tiles_y) / batches();",
        "    let a = a_start(batch);",
        "    let b = b_start(batch);",
        "    // A subgroup of 32 is 4 high and 8 wide: it reads the fewest different parts of workgroup memory.",
        f"    let x = local % 8u + local / 32u % {block.side_x // 8}u * 8u;",
        f"    let y = local % 32u / 8u + local / {4 * block.side_x}u * 4u;",
        *a.places(block),
        *b.places(block),
        *(f"    {' '.join(f'var c{i}_{g} = {four}();' for g in columns)}" for i in rows),
        f"    {' '.join(f'var sums{g} = {four}();' for g in columns)}",
        *(f"    {' '.join(f'var next_{op.name}{i}: {four};' for i in range(op.loads(block)))}" for op in (a, b)),
        "    let last = min((slice + 1u) * per_slice(), inner());",
        "    var k = slice * per_slice();",
        *inside(fetch, 1),
        *walk,
        f"    if (SUMS && m + y == 0u) {{ {sums} }}",
        "    let c = c_start(batch, slice);",
        *store(),
        "}",
    ]
    return "\n".join(lines) + "\n"
