"""Plans reductions: the kept axes are the outputs, the folded ones are walked; long folds go in two passes."""

from __future__ import annotations

import functools
from typing import NamedTuple

from wgpu_nn.dtype import DTYPES, Kind
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.fused import Chain, Finish, chain_functions, finish_header
from wgpu_nn.kernels.map import VALUE, load, plan_map, run_map
from wgpu_nn.kernels.plan import MOST_TURNS, Site, View, Words, grid
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.shape import Shape, collapse, reduced, size

# acc and x are accumulators; r is an element's place among those folded.
_COMBINE: dict[str, str | dict[Kind, str]] = {
    "sum": "a + b",
    "mean": "a + b",
    "prod": "a * b",
    "max": {Kind.FLOAT: "max_nan(a, b)", Kind.INT: "max(a, b)"},
    "min": {Kind.FLOAT: "min_nan(a, b)", Kind.INT: "min(a, b)"},
    "any": "a | b",
    "all": "a & b",
}
_IDENTITY: dict[str, str | dict[Kind, str]] = {
    "sum": {Kind.FLOAT: "0.0", Kind.INT: "0"},
    "mean": "0.0",
    "prod": {Kind.FLOAT: "1.0", Kind.INT: "1"},
    "max": {Kind.FLOAT: "-infinity()", Kind.INT: "-2147483647 - 1"},
    "min": {Kind.FLOAT: "infinity()", Kind.INT: "2147483647"},
    "any": "0u",
    "all": "1u",
}
# The first of equal extremes wins, and the first NaN before all numbers. `none` marks an accumulator without elements.
_ARG = """struct Acc {{ value: {value}, place: u32 }}
const NONE = 0xffffffffu;
fn identity() -> Acc {{ return Acc({value}(0), NONE); }}
fn load(at: u32, r: u32) -> Acc {{ return Acc(source[at], r); }}
fn ahead(a: Acc, b: Acc) -> bool {{ return {ahead}; }}
fn combine(a: Acc, b: Acc) -> Acc {{
    if (a.place == NONE) {{ return b; }}
    if (b.place == NONE) {{ return a; }}
    if (ahead(a, b)) {{ return a; }}
    if (ahead(b, a) || b.place < a.place) {{ return b; }}
    return a;
}}
fn store(i: u32, a: Acc) {{ out[i] = i32(a.place); }}"""
_AHEAD = {
    ("argmax", Kind.FLOAT): "(is_nan(a.value) && !is_nan(b.value)) || (!is_nan(b.value) && a.value > b.value)",
    ("argmin", Kind.FLOAT): "(is_nan(a.value) && !is_nan(b.value)) || (!is_nan(b.value) && a.value < b.value)",
    ("argmax", Kind.INT): "a.value > b.value",
    ("argmin", Kind.INT): "a.value < b.value",
}

SLICE = (
    1024  # elements that one invocation folds at most where there are few outputs: f32 sums stay short, and parallel
)
BUSY = 4096  # invocations that keep an adapter busy


class ReduceKey(NamedTuple):
    """What distinguishes reduction kernels. ``lanes`` is of the column variant: invocations that share an output."""

    op: str
    dtype: str
    kept: int
    folded: int
    body: str  # reduce, reduce_rows or reduce_columns
    lanes: int
    final: bool  # a mean divides in its last pass
    start: Chain | None  # what makes the elements that are folded, from their place in the operand
    finish: Chain | None
    workgroup: int


def _pick(table: dict[str, str | dict[Kind, str]], op: str, kind: Kind) -> str:
    text = table[op]
    return text if isinstance(text, str) else text[kind]


def fold_of(op: str, kind: Kind) -> tuple[str, str]:
    """Return the WGSL that combines a and b, and the identity, of a reduction over elements of ``kind``."""
    return _pick(_COMBINE, op, kind), _pick(_IDENTITY, op, kind)


def _word(truth: str) -> str:
    return f"select(0u, 1u, {truth})"


@functools.cache
def reduce_kernel(key: ReduceKey, values: Words | None) -> Kernel:
    """Return the kernel of a reduction over ``folded`` axes, with ``kept`` axes of outputs."""
    dtype = DTYPES[key.dtype]
    arg = key.op in ("argmax", "argmin")
    names = ["outputs", "slices", "length", "start"]
    names += [f"kept_size{d}" for d in range(key.kept)] + [f"kept_stride{d}" for d in range(key.kept)]
    names += [f"size{d}" for d in range(key.folded)] + [f"stride{d}" for d in range(key.folded)]
    names.append("total")
    loaded = [("source", "r", dtype.wgsl)]
    more: list[tuple[str, str, str]] = []
    lines = ["fn start_of(o: u32) -> u32 {", "    var rest = o;", "    var at = start();"]
    for d in reversed(range(key.kept)):
        lines.append(f"    at += {'rest' if d == 0 else f'(rest % kept_size{d}())'} * kept_stride{d}();")
        if d:
            lines.append(f"    rest /= kept_size{d}();")
    lines += ["    return at;", "}"]
    for name, word in (("stride", "stride"), ("count", "size")):
        cases = "".join(f" case {d}u: {{ return {word}{d}(); }}" for d in range(1, key.folded))
        lines.append(f"fn {name}(d: u32) -> u32 {{ switch d {{{cases} default: {{ return {word}0(); }} }} }}")
    if arg:
        lines.append(_ARG.format(value=VALUE[dtype.kind], ahead=_AHEAD[key.op, dtype.kind]))
        out = "i32"
    else:
        # Truths are folded as words: an H100 drops some of a workgroup's bools.
        truth = dtype.kind is Kind.BOOL
        lines.append(f"alias Acc = {'u32' if truth else VALUE[dtype.kind]};")
        lines.append(f"fn identity() -> Acc {{ return {_pick(_IDENTITY, key.op, dtype.kind)}; }}")
        if key.start is None:
            element = load("source", key.dtype, "at")
            lines.append(f"fn load(at: u32, r: u32) -> Acc {{ return {_word(element) if truth else element}; }}")
        else:
            loaded = [(f"source{n}", "r", DTYPES[leaf.dtype].wgsl) for n, leaf in enumerate(key.start.leaves)]
            lines.append(chain_functions(key.start, [name for name, _, _ in loaded], function="element"))
            element = _word("element(at)") if truth else "element(at)"
            lines.append(f"fn load(at: u32, r: u32) -> Acc {{ return {element}; }}")
        lines.append(f"fn combine(a: Acc, b: Acc) -> Acc {{ return {_pick(_COMBINE, key.op, dtype.kind)}; }}")
        value = "a / f32(total())" if key.op == "mean" and key.final else "a != 0u" if truth else "a"
        more, finish, result = finish_header(key.finish, key.dtype)
        lines += [finish, f"fn store(i: u32, a: Acc) {{ out[i] = finish(i, {value}); }}"]
        out = DTYPES[result].wgsl
    stored = (*loaded, *more, ("out", "w", out))
    access = "".join(a for _, a, _ in stored)
    header = "\n".join(
        [
            bindings(stored, values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            f"const RANK = {key.folded}u;",
            f"const LANES = {key.lanes}u;",
            words(tuple(names), values),
            *lines,
        ]
    )
    return assemble(f"{key.op} {key.dtype}", key.body, header, access, values is None)


def run_reduce(
    site: Site,
    op: str,
    x: View,
    axes: tuple[int, ...],
    out: View,
    start: Finish | None = None,
    finish: Finish | None = None,
) -> None:
    """Plan one reduction of ``x`` over ``axes`` into ``out``, which is contiguous.

    ``start`` makes the elements of ``x``, which is then the shape and type of what is folded, without memory; ``finish``
    is applied to each result.
    """
    if out.size == 0:
        return
    length = size(tuple(x.shape[a] for a in axes))
    if length == 0:
        empty = {"sum": 0, "mean": float("nan"), "prod": 1, "any": False, "all": True}[op]
        if finish is None:
            run_map(site, "full", [empty], out)
            return
        x = site.empty(out.shape, x.dtype)
        run_map(site, "full", [empty], x)
        op, axes, start, length = ("any" if x.dtype.kind is Kind.BOOL else "max"), (), None, 1
    if length == 1 and site.tuned and start is None and finish is None and op not in ("argmax", "argmin"):
        run_map(site, "cast", [x.seen(out.shape, _without(x, axes, len(out.shape)))], out)
        return
    arg = op in ("argmax", "argmin")
    outputs = out.size
    folded, strides = _folded(site, x, axes)
    body = _body(site, folded, strides, outputs, length)
    per_output = {"reduce": SLICE, "reduce_columns": SLICE * 8, "reduce_rows": SLICE * 16}[body]
    slices = 1
    if not arg and outputs < BUSY and length > per_output:
        # The number of slices depends on the shape alone, so that sums are the same each time.
        slices = min(-(-length // per_output), 1024 if body == "reduce_rows" else max(1, BUSY // outputs))
        body = "reduce" if body == "reduce_columns" else body
    if site.target.software and length > slices * MOST_TURNS:
        if arg:
            _first_equal(site, op, x, axes, out)
            return
        slices = -(-length // MOST_TURNS)
    if slices > 1:
        partial = site.empty((slices, outputs), x.dtype)
        _pass(site, op, x, axes, partial, slices, body, False, length, start, None)
        _pass(
            site,
            op,
            partial,
            (0,),
            out,
            1,
            _body(site, (slices,), (outputs,), outputs, slices),
            True,
            length,
            None,
            finish,
        )
    else:
        _pass(site, op, x, axes, out, 1, body, True, length, start, finish)


def run_totals(site: Site, op: str, x: View, axis: int, totals: View) -> None:
    """Plan totals[slice, output]: one axis folded in as many slices of even length as ``totals`` has rows."""
    folded, strides = _folded(site, x, (axis,))
    length = x.shape[axis]
    rows = _body(site, folded, strides, x.size // length, length) == "reduce_rows"
    body = "reduce_rows" if rows and length >= 64 * totals.shape[0] else "reduce"
    _pass(site, op, x, (axis,), totals, totals.shape[0], body, False, length, None, None)


def _folded(site: Site, x: View, axes: tuple[int, ...]) -> tuple[Shape, Shape]:
    """Return the sizes and strides of the axes that are folded; a batch of one keeps its axis in eager mode."""
    sizes, (strides,) = collapse(
        tuple(x.shape[a] for a in axes), [tuple(x.strides[a] for a in axes)], keep_ones=not site.tuned
    )
    return sizes, strides


def _body(site: Site, folded: Shape, strides: Shape, outputs: int, length: int) -> str:
    """Choose the variant: software adapters take no workgroup memory; others share what is long and contiguous, or long
    for few outputs."""
    if site.target.software or len(folded) > 1 or site.target.invocations < 256:
        return "reduce"
    if strides[-1:] == (1,) and (length >= 128 or outputs <= 64):
        return "reduce_rows"
    return "reduce_columns" if outputs <= 1 << 14 and (length >= 32 or not site.tuned) else "reduce"


def _lanes(site: Site, outputs: int) -> int:
    """Return how many invocations share an output: the more, the fewer outputs there are."""
    if not site.tuned:
        return 16
    return 8 if outputs >= 4096 else 16 if outputs >= 1024 else 32 if outputs >= 256 else 64


def _first_equal(site: Site, op: str, x: View, axes: tuple[int, ...], out: View) -> None:
    """Plan an arg-reduction as the smallest place among those equal to the extreme: each part may go in two passes."""
    (axis,) = axes
    kept = reduced(x.shape, axes, keepdim=True)
    best = site.empty(kept, x.dtype)
    run_reduce(site, op.removeprefix("arg"), x, (axis,), best)
    places = site.empty((x.shape[axis],), out.dtype)
    run_map(site, "arange", [0, 1], places)
    found = site.empty(x.shape, out.dtype)
    same = "equal_f(x, y) || (is_nan(x) && is_nan(y))" if x.dtype.kind is Kind.FLOAT else "x == y"
    along = places.seen(x.shape, tuple(1 if i == axis else 0 for i in range(len(x.shape))))
    text = f"select(2147483647, z, {same})"
    plan_map(site, text, [x.dtype, x.dtype, out.dtype], [x, best, along], found)
    run_reduce(site, "min", found, (axis,), out)


def _without(x: View, axes: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Return the strides of ``x`` as the result of ``rank`` axes sees them, the folded axes having one element."""
    if rank == len(x.shape):
        return x.strides
    return tuple(s for i, s in enumerate(x.strides) if i not in axes)


def _pass(
    site: Site,
    op: str,
    x: View,
    axes: tuple[int, ...],
    out: View,
    slices: int,
    body: str,
    final: bool,
    total: int,
    start: Finish | None,
    finish: Finish | None,
) -> None:
    keep = [i for i in range(len(x.shape)) if i not in axes]
    kept, (kept_strides,) = collapse(tuple(x.shape[i] for i in keep), [tuple(x.strides[i] for i in keep)])
    folded, strides = _folded(site, x, axes)
    if not folded:
        folded, strides = (1,), (0,)
    outputs, length = size(kept), size(folded)
    target = site.target
    workgroup = target.workgroup if body == "reduce" else 256
    lanes = _lanes(site, outputs) if body == "reduce_columns" else 1
    chains = [part.chain if part else None for part in (start, finish)]
    key = ReduceKey(op, x.dtype.name, len(kept), len(folded), body, lanes, final, chains[0], chains[1], workgroup)
    values = (outputs, slices, length, x.offset, *kept, *kept_strides, *folded, *strides, total)
    groups = outputs * slices if body == "reduce_rows" else -(-outputs * slices * lanes // workgroup)
    views = [*(start.views if start else [x]), *(finish.views if finish else ()), out]
    site.launch(reduce_kernel, key, values, views, grid(groups))
