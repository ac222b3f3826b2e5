"""Chooses the kernel of a matrix product: by rule, and the others that are worth measuring; writes no WGSL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from wgpu_nn.kernels.block import Block, choose_block, fitting_blocks, long_block
from wgpu_nn.kernels.fused import Chain
from wgpu_nn.kernels.plan import MOST_TURNS, Site, View
from wgpu_nn.shape import Shape, broadcast_strides, collapse, size

STEP = 16  # inner elements that a tile takes at a time; slices are multiples of it
MOST = 16  # candidates: each costs a compile
LONG = 4096  # inner elements from which a small product goes in slices of large blocks
BUSY = 256  # workgroups of a block that keep any GPU busy
SPREAD = 512  # workgroups beyond which no slices are tried, as they keep any GPU busy


class MatmulKey(NamedTuple):
    """What distinguishes matmul kernels. ``a`` and ``b`` say how an operand is loaded."""

    body: str  # block, tile, direct or dot
    a: str
    b: str
    rank: int  # batch axes
    vector_out: bool
    sums: bool  # whether the columns of b are summed as well
    finish: Chain | None
    side: int  # workgroup size, or the root of a team's for tiles
    teams: int = 1  # of a tile's workgroup, which share the inner axis
    block: Block | None = None
    whole: bool = False  # whether blocks divide the product, so that no edge need be looked for
    half: bool = False  # whether blocks are summed up in f16


class Product(NamedTuple):
    """A batched product x y, its batch axes merged where they can be."""

    x: View
    y: View
    rows: int
    columns: int
    inner: int
    sizes: Shape  # of the batch axes
    a_batch: Shape
    b_batch: Shape

    @classmethod
    def of(cls, x: View, y: View, out: Shape) -> Product:
        """Return the product of two views whose batches broadcast."""
        strides = [broadcast_strides(v.shape[:-2], v.strides[:-2], out[:-2]) for v in (x, y)]
        sizes, (a_batch, b_batch) = collapse(out[:-2], strides)
        rows, columns = out[-2:]
        return cls(x, y, rows, columns, x.shape[-1], sizes, a_batch, b_batch)

    @property
    def batches(self) -> int:
        """The number of products."""
        return size(self.sizes)

    @property
    def traits(self) -> str:
        """How the operands lie in memory, as far as a choice depends on it."""

        def lies(v: View, batch: Shape) -> str:
            along = "row" if v.strides[-1] == 1 else "column" if v.strides[-2] == 1 else "any"
            fours = _aligned(v, max(v.strides[-2:]), batch)
            return f"{along}{'4' if fours else ''}{' shared' if batch and not any(batch) else ''}"

        return f"{lies(self.x, self.a_batch)} {lies(self.y, self.b_batch)}{' to 4' if self.columns % 4 == 0 else ''}"

    def count(self, high: int, wide: int) -> int:
        """Return how many tiles of this size it has."""
        return -(-self.rows // high) * -(-self.columns // wide) * self.batches


class Variant(NamedTuple):
    """A way to compute a product: its kernel, the number of tiles, and the slices of the inner axis with their size."""

    key: MatmulKey
    tiles: int
    slices: int
    per_slice: int

    @property
    def name(self) -> str:
        """What it is remembered by."""
        k = self.key
        body = f"block {'x'.join(map(str, k.block[:5]))}" if k.block else f"{k.body} {k.side} in {k.teams}"
        return f"{body}, {k.a} {k.b}, {self.slices} slices"


def _aligned(v: View, stride: int, batch: Shape) -> bool:
    return all(n % 4 == 0 for n in (v.offset, stride, *batch))


def _sliced(key: MatmulKey, tiles: int, inner: int, wanted: int) -> Variant:
    step = STEP * key.teams
    per_slice = -(-inner // (wanted * step)) * step
    return Variant(key, tiles, -(-inner // per_slice), per_slice)


def rule(site: Site, p: Product) -> Variant:
    """Choose by adapter kind, layout and size."""
    if site.target.software:
        key, tiles = next(_in_registers(p, 32))
    else:
        ways = _by_inner(p)
        block = choose_block(site.target, p.rows, p.columns, p.inner, p.batches, *ways)
        if block is None and p.inner >= LONG and site.tuned:
            block = long_block(site.target, p.rows, p.columns, *ways)
            if block is not None:
                key, tiles = _block(site, p, block)
                return _sliced(key, tiles, p.inner, min(-(-BUSY // tiles), p.inner // 256))
        if block is not None:
            key, tiles = _block(site, p, block)
        else:
            side = _side(site, p)
            key, tiles = _tile(p, side, _teams(site, side, p.inner))
    return _sliced(key, tiles, p.inner, _slices(site, tiles, p.inner, key.teams))


def variants(site: Site, p: Product) -> list[Variant]:
    """Return what the rules say, and behind it what else may be as good, the likely first."""
    first = rule(site, p)
    if not site.tuned:
        return [first]
    found = {first.name: first}
    for key, tiles in _software(p) if site.target.software else _gpu(site, p):
        least = -(-p.inner // MOST_TURNS) if site.target.software else 1
        for more in (1, 2, 4):
            if more == 1 or (tiles * more <= SPREAD and p.inner // (least * more * key.teams) >= 128):
                v = _sliced(key, tiles, p.inner, least * more)
                found.setdefault(v.name, v)
    return list(found.values())[:MOST]


def _software(p: Product) -> Iterator[tuple[MatmulKey, int]]:
    for workgroup in (32, 8):
        yield from _in_registers(p, workgroup)


def _gpu(site: Site, p: Product) -> Iterator[tuple[MatmulKey, int]]:
    for block in fitting_blocks(site.target, p.rows, p.columns, p.inner, *_by_inner(p)):
        yield _block(site, p, block)
    for side in (8, 4):
        if p.count(4 * side, 4 * side) <= 4 * SPREAD:
            teams = _teams(site, side, p.inner)
            yield from (_tile(p, side, n) for n in sorted({teams, -(-teams // 4), 1}, reverse=True))


def _by_inner(p: Product) -> tuple[bool, bool]:
    return p.x.strides[-1] == 1, p.y.strides[-2] == 1 and p.y.strides[-1] != 1


def _block(site: Site, p: Product, block: Block) -> tuple[MatmulKey, int]:
    x, y = p.x, p.y
    a = (x, *((x.strides[-2], p.inner) if block.a_by_inner else (x.strides[-1], p.rows)), p.a_batch)
    b = (y, *((y.strides[-1], p.inner) if block.b_by_inner else (y.strides[-2], p.columns)), p.b_batch)
    how_a, how_b = (
        "vector" if min(v.strides[-2:]) == 1 and edge % 4 == 0 and _aligned(v, stride, batch) else "any"
        for v, stride, edge, batch in (a, b)
    )
    whole = site.tuned and not (p.rows % block.rows or p.columns % block.columns or p.inner % block.step)
    key = MatmulKey("block", how_a, how_b, len(p.sizes), p.columns % 4 == 0, False, None, 0, 1, block, whole)
    return key, p.count(block.rows, block.columns)


def _tile(p: Product, side: int, teams: int) -> tuple[MatmulKey, int]:
    a, b = ("by_inner" if by_inner else "by_side" for by_inner in _by_inner(p))
    key = MatmulKey("tile", a, b, len(p.sizes), p.columns % 4 == 0, False, None, side, teams)
    return key, p.count(4 * side, 4 * side)


def _in_registers(p: Product, workgroup: int) -> Iterator[tuple[MatmulKey, int]]:
    """Yield the bodies without workgroup memory, the better first."""
    x, y, rank, fours = p.x, p.y, len(p.sizes), p.columns % 4 == 0
    dot = p.inner % 4 == 0 and x.strides[-1] == 1 and y.strides[-2] == 1 and y.strides[-1] != 1
    if dot and _aligned(x, x.strides[-2], p.a_batch) and _aligned(y, y.strides[-1], p.b_batch):
        yield MatmulKey("dot", "vector", "vector", rank, fours, False, None, workgroup), p.count(8, 4)
    vector = fours and y.strides[-1] == 1 and _aligned(y, y.strides[-2], p.b_batch)
    key = MatmulKey("direct", "any", "vector" if vector else "any", rank, fours, False, None, workgroup)
    yield key, p.count(8, 8)


def _slices(site: Site, tiles: int, inner: int, teams: int) -> int:
    """Return into how many parts the inner axis is split, to be summed in order; it depends on shapes only.

    A second launch sums them, so it must be long.
    """
    if site.target.software:
        return -(-inner // MOST_TURNS)
    wanted = 1
    while tiles * wanted < 128 and inner // (2 * wanted * teams) >= 512:
        wanted *= 2
    return wanted


def _side(site: Site, p: Product) -> int:
    """Return a quarter of a small tile's side: larger tiles reuse more, small ones are more, and keep a large GPU busy."""
    return 8 if not site.tuned or p.count(32, 32) >= 128 or p.inner < 256 else 4


def _teams(site: Site, side: int, inner: int) -> int:
    """Return how many teams of side x side invocations share the inner axis of a small tile: a power of two."""
    if not site.tuned:
        return 1
    memory = 2 * STEP * side * 16  # bytes of a team's two tiles
    most = min(site.target.invocations // (side * side), site.target.storage // memory, inner // 32, 16)
    return 1 << max(most.bit_length() - 1, 0)
