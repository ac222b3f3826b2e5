"""Writes the headers of reductions: where elements lie, what they become, and where results go; plans nothing."""

from __future__ import annotations

import functools
from typing import NamedTuple

from wgpu_nn.dtype import DTYPES, Kind
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.fold import ARGS, ONE, accumulator, loads, store
from wgpu_nn.kernels.fused import Chain, chain_functions, finish_header
from wgpu_nn.kernels.map import VALUE, load
from wgpu_nn.kernels.plan import Words
from wgpu_nn.kernels.source import assemble, bindings, words


class ReduceKey(NamedTuple):
    """What distinguishes reduction kernels; planners know the variants."""

    op: str
    dtype: str
    kept: int
    folded: int
    body: str
    lanes: int
    span: int
    parts: int
    first: bool  # whether elements come in, rather than accumulators
    last: bool  # whether results go out, rather than accumulators
    start: Chain | None  # what makes the elements that are folded, from their place in the operand
    finish: Chain | None
    inplace: int  # the leaf of ``finish`` whose memory the results replace, or -1
    workgroup: int


def _word(truth: str) -> str:
    return f"select(0u, 1u, {truth})"


def _starts(key: ReduceKey) -> list[str]:
    """Return ``start_of``, where an output's elements start; for moments it also loads the pivots of ``span`` outputs."""
    lines: list[str] = []
    moments = key.op == "moments" and key.first
    for name, word in (("start_of", "kept_stride"), *([("pivot_of", "pivot_stride")] if moments else [])):
        lines += [f"fn {name}(o: u32) -> u32 {{", "    var rest = o;", "    var at = start();"]
        for d in reversed(range(key.kept)):
            lines.append(f"    at += {'rest' if d == 0 else f'(rest % kept_size{d}())'} * {word}{d}();")
            if d:
                lines.append(f"    rest /= kept_size{d}();")
        if moments and name == "start_of":
            several = key.body.startswith("reduce_columns") and key.span == 4
            lines.append(f"    pivot = {'values(pivot_of(o))' if several else 'vec4f(value(pivot_of(o)))'};")
        lines += ["    return at;", "}"]
    return ["var<private> pivot: vec4f;" if key.op == "moments" else "", *lines]


def _elements(key: ReduceKey) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Return the bindings that elements come from, and the WGSL of ``value`` and, if four are taken at once, ``values``."""
    dtype = DTYPES[key.dtype]
    truth = dtype.kind is Kind.BOOL  # folded as words: an H100 drops some of a workgroup's bools
    kind = "u32" if truth else VALUE[dtype.kind]
    four = key.span == 4
    if key.start is None:
        stored = [("source", "r", f"vec4<{dtype.wgsl}>" if four else dtype.wgsl)]
        one = load("source", key.dtype, "at / 4u][at % 4u" if four else "at")
        quad = f"return {'select(vec4u(), vec4u(1u), source[at / 4u] != vec4u())' if truth else 'source[at / 4u]'};"
        lines: list[str] = []
    else:
        leaves = key.start.leaves
        wide = [n for n, leaf in enumerate(leaves) if four and leaf.linear]
        names = [f"source{n}" for n in range(len(leaves))]
        stored = [
            (name, "r", f"vec4<{DTYPES[leaf.dtype].wgsl}>" if n in wide else DTYPES[leaf.dtype].wgsl)
            for n, (name, leaf) in enumerate(zip(names, leaves, strict=True))
        ]
        lines = [chain_functions(key.start, names, given=frozenset(wide), function="element")]
        places = [f"at / 4u + {leaf.offset // 4}u" for leaf in leaves]
        given = [load(names[n], leaves[n].dtype, f"{places[n]}][at % 4u") for n in wide]
        one = f"element({', '.join(['at', *given])})"
        vectors = "".join(f"let v{n} = {names[n]}[{places[n]}]; " for n in wide)
        parts = [", ".join([f"at + {k}u", *(load(f"v{n}", leaves[n].dtype, f"{k}u") for n in wide)]) for k in range(4)]
        each = [_word(f"element({p})") if truth else f"element({p})" for p in parts]
        quad = f"{vectors}return vec4({', '.join(each)});"
    lines.append(f"fn value(at: u32) -> {kind} {{ return {_word(one) if truth else one}; }}")
    if four:
        lines.append(f"fn values(at: u32) -> vec4<{kind}> {{ {quad} }}")
    return stored, lines


@functools.cache
def reduce_kernel(key: ReduceKey, values: Words | None) -> Kernel:
    """Return the kernel of a reduction over ``folded`` axes, with ``kept`` axes of outputs."""
    dtype = DTYPES[key.dtype]
    kind = "u32" if dtype.kind is Kind.BOOL else VALUE[dtype.kind]
    names = ["outputs", "slices", "length", "total", "divisor", "start"]
    for word in ("kept_size", "kept_stride", *(["pivot_stride"] if key.op == "moments" else [])):
        names += [f"{word}{d}" for d in range(key.kept)]
    names += [f"{word}{d}" for word in ("size", "stride") for d in range(key.folded)]
    lines = [accumulator(key.op, dtype.kind, kind), *_starts(key)]
    for name, word in (("stride", "stride"), ("count", "size")):
        cases = "".join(f" case {d}u: {{ return {word}{d}(); }}" for d in range(1, key.folded))
        lines.append(f"fn {name}(d: u32) -> u32 {{ switch d {{{cases} default: {{ return {word}0(); }} }} }}")
    if not key.first:
        stored = [("source", "r", "Acc")]
        lines += ["fn load(at: u32, r: u32) -> Acc { return source[at]; }", ONE]
    else:
        stored, elements = _elements(key)
        lines += [*elements, loads(key.op, kind, key.span)]
    more: list[tuple[str, str, str]] = []
    if not key.last:
        out = "Acc"
        lines.append("fn store(i: u32, a: Acc) { out[i] = a; }")
    elif key.op in ARGS:
        out = "i32"
        lines.append(store(key.op, dtype.kind))
    else:
        more, finish, result = finish_header(key.finish, key.dtype, key.inplace)
        out = DTYPES[result].wgsl
        lines += [finish, store(key.op, dtype.kind)]
    bound = (*stored, *more, ("out", "w", out))
    header = "\n".join(
        [
            bindings(bound, values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            f"const RANK = {key.folded}u;",
            f"const LANES = {key.lanes}u;",
            f"const SPAN = {key.span}u;",
            f"const PARTS = {key.parts}u;",
            words(tuple(names), values),
            *lines,
        ]
    )
    access = "".join(a for _, a, _ in bound)
    return assemble(f"{key.op} {key.dtype}", key.body, header, access, values is None)
