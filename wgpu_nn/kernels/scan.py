"""Plans scans, the running sums, products and extremes along one axis: in slices, whose totals are scanned in turn."""

from __future__ import annotations

import functools
from typing import NamedTuple

from wgpu_nn.dtype import DTYPES
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.fold import fold_of
from wgpu_nn.kernels.map import VALUE
from wgpu_nn.kernels.plan import MOST_TURNS, Site, View, Words, grid
from wgpu_nn.kernels.reduce import run_totals
from wgpu_nn.kernels.rows import row_starts
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.shape import collapse, size

# Each scan keeps the running value of a reduction.
FOLDS = {"cumsum": "sum", "cumprod": "prod", "cummax": "max", "cummin": "min"}

PER = 8  # neighbours that an invocation of a tile scans by itself
TILE = 256 * PER
WIDE = 64  # elements from which a row is worth a workgroup
SLICE = 4096  # elements that one invocation of a software adapter scans where there are few rows
FEW = 4096  # slices whose totals a workgroup folds faster than a launch of their own scans them
BUSY = 16384  # invocations that keep a GPU busy


class ScanKey(NamedTuple):
    """What distinguishes scan kernels. ``carried`` says what slices start from: nothing, the ``totals`` of all slices before,
    which are then scanned already or, if they are ``few``, folded by each workgroup anew."""

    op: str
    dtype: str
    rank: int
    tiled: bool
    carried: str
    workgroup: int


@functools.cache
def scan_kernel(key: ScanKey, values: Words | None) -> Kernel:
    """Return the kernel that scans slices of rows addressed over ``rank`` axes."""
    dtype = DTYPES[key.dtype]
    combine, identity = fold_of(FOLDS[key.op], dtype.kind)
    names = ["rows", "slices", "length", "in_offset", "out_offset", "in_stride", "out_stride"]
    names += [f"{part}{d}" for part in ("size", "in_step", "out_step") for d in range(key.rank)]
    stored = [("source", "r", dtype.wgsl), ("out", "w", dtype.wgsl)]
    carried, first = "identity()", {"": "slice", "few": "0u", "totals": "max(slice, 1u) - 1u"}[key.carried]
    if key.carried:
        stored.insert(1, ("carry", "r", dtype.wgsl))
        carried = "carry[slice * rows() + row]"
    header = "\n".join(
        [
            bindings(tuple(stored), values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            f"const PER = {PER}u;",
            f"alias Acc = {VALUE[dtype.kind]};",
            words(tuple(names), values),
            *row_starts(("in", "out"), key.rank),
            f"fn identity() -> Acc {{ return {identity}; }}",
            f"fn combine(a: Acc, b: Acc) -> Acc {{ return {combine}; }}",
            f"fn first_carry(slice: u32) -> u32 {{ return {first}; }}",
            f"fn carried(row: u32, slice: u32) -> Acc {{ return {carried}; }}",
        ]
    )
    access = "".join(a for _, a, _ in stored)
    return assemble(f"{key.op} {key.dtype}", "scan_tile" if key.tiled else "scan", header, access, values is None)


def run_scan(site: Site, op: str, x: View, axis: int, out: View) -> None:
    """Plan the running values of ``x`` along ``axis`` into ``out``.

    A long axis is cut into slices. Their totals are folded first, and scanned if they are many; each slice starts from the
    total of those before it. Slices depend on the shape alone, so results are the same each time.
    """
    if out.size == 0:
        return
    length = x.shape[axis]
    rows = x.size // length
    tiled, slices = _variant(site, x, axis, rows)
    views = [x, out]
    if slices > 1:
        carry = site.empty((slices, rows), x.dtype.wide)
        run_totals(site, FOLDS[op], x, axis, carry)
        if not (tiled and slices <= FEW):
            totals, carry = carry, site.empty((slices, rows), x.dtype.wide)
            run_scan(site, op, totals, 0, carry)
        views.insert(1, carry)
    others = [i for i in range(len(x.shape)) if i != axis]
    sizes, (steps, out_steps) = collapse(
        tuple(x.shape[i] for i in others), [tuple(v.strides[i] for i in others) for v in (x, out)]
    )
    workgroup = (256 if length > 512 else 64) if tiled else site.target.workgroup
    carried = "" if slices == 1 else "few" if tiled and slices <= FEW else "totals"
    key = ScanKey(op, x.dtype.name, len(sizes), tiled, carried, workgroup)
    values = (
        *(size(sizes), slices, length, x.offset, out.offset, x.strides[axis], out.strides[axis]),
        *(*sizes, *steps, *out_steps),
    )
    groups = rows * slices if tiled else -(-rows * slices // workgroup)
    site.launch(scan_kernel, key, values, views, grid(groups))


def _variant(site: Site, x: View, axis: int, rows: int) -> tuple[bool, int]:
    """Return whether workgroups share slices, and the number of slices of a row."""
    length = x.shape[axis]
    if site.target.software or site.target.invocations < 256:
        enough = rows >= 64 and length <= MOST_TURNS
        return False, 1 if enough else -(-length // SLICE)
    # Rows side by side in memory are read together by neighbouring invocations, a row each.
    if length >= WIDE and (x.strides[axis] == 1 or rows < 16):
        return True, -(-length // TILE)
    return False, max(1, min(-(-length // 32), BUSY // rows))
