"""Chains: several map ops as one function of an index, run as a kernel of their own or inside another's loads or stores.

Used by captured steps only, where every size is a constant.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from wgpu_nn.dtype import DTYPES, DType, Kind, Scalar
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.map import copy, load, store, value_type
from wgpu_nn.kernels.plan import Site, Task, View, Words, bits, chosen, grid, layout, workgroups
from wgpu_nn.kernels.source import assemble, bindings
from wgpu_nn.kernels.windows import large, runs, window
from wgpu_nn.shape import Shape, collapse, is_row_major


class Leaf(NamedTuple):
    """What a chain starts from. Elements are found at ``offset`` + the coordinates of the index times ``strides``."""

    dtype: str
    linear: bool  # element i at offset + i: four at once may be loaded
    offset: int
    sizes: Shape
    strides: Shape

    @property
    def single(self) -> bool:
        """Whether it is one element for all indices."""
        return not self.linear and all(s == 0 for s in self.strides)


class Arg(NamedTuple):
    """An operand of a chain's step: a leaf, an earlier step, or a number."""

    role: str  # leaf, step, number, or value: what the kernel around the chain computed
    index: int
    number: Scalar = 0
    text: str = ""  # the number's, as 0.0 and -0.0 are equal


class Link(NamedTuple):
    """One step of a chain: WGSL in x, y, z and i."""

    text: str
    args: tuple[Arg, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps in order; ``outs`` are the steps whose results are stored."""

    leaves: tuple[Leaf, ...]
    links: tuple[Link, ...]
    outs: tuple[int, ...]


def leaf_of(view: View, shape: Shape) -> Leaf:
    """Return how ``view``, whose strides are over ``shape``, is read by a row-major index over it."""
    if view.offset % 4 == 0 and is_row_major(shape, view.strides):
        return Leaf(view.dtype.name, True, view.offset, (), ())
    sizes, (strides,) = collapse(shape, [view.strides])
    return Leaf(view.dtype.name, False, view.offset, sizes, strides)


def literal(value: Scalar, dtype: str, hide: bool = False) -> str:
    """Return a number as WGSL of the element type ``dtype``; rounding is that of the shortest decimal, so exact.

    ``hide`` keeps compilers from computing with it in their own precision.
    """
    kind = DTYPES[dtype].kind
    if kind is Kind.BOOL:
        return "true" if value else "false"
    if kind is Kind.INT:
        number = int(value)
        return f"i32({number})" if number > -(2**31) else "(-2147483647 - 1)"
    number = float(value)
    word = bits(value, DTYPES[dtype])
    exponent = word >> 23 & 0xFF
    # Zeros and what a GPU may take for one; and what is not finite, or may become so, which an H100 computes without.
    if hide or exponent == 0 or exponent > 250:
        return f"bitcast<f32>(hidden({word}u))"
    return f"f32({number!r})"


def _address(leaf: Leaf, i: str) -> str:
    """Return the WGSL of a strided leaf's place for index ``i``."""
    if leaf.linear:
        return f"{leaf.offset}u + {i}" if leaf.offset else i
    parts = [f"{leaf.offset}u"] if leaf.offset or not leaf.sizes else []
    inner = 1
    for d in reversed(range(len(leaf.sizes))):
        step = leaf.strides[d] & 0xFFFFFFFF
        if leaf.strides[d]:
            at = f"({i} / {inner}u)" if inner > 1 else i
            at = f"({at} % {leaf.sizes[d]}u)" if d else at
            parts.append(f"{at} * {step}u" if step != 1 else at)
        inner *= leaf.sizes[d]
    return " + ".join(parts) or "0u"


def chain_functions(
    chain: Chain, names: Sequence[str], value: str = "", given: frozenset[int] = frozenset(), function: str = "chain"
) -> str:
    """Return the WGSL of ``chain``: a function from an index to its results.

    ``names`` are the leaves' bindings. Leaves in ``given`` come as arguments v<n>, as does the element type ``value``
    of what the kernel around computed, named v.
    """
    arguments = ["i: u32"]
    if value:
        arguments.append(f"v: {value_type(value)}")
    lines: list[str] = []
    for n, (leaf, name) in enumerate(zip(chain.leaves, names, strict=True)):
        if n in given:
            arguments.append(f"v{n}: {value_type(leaf.dtype)}")
        else:
            lines.append(f"    let v{n} = {load(name, leaf.dtype, _address(leaf, 'i'))};")
    for n, link in enumerate(chain.links):
        words = dict(zip("xyz", (_argument(a, link, chain) for a in link.args), strict=False))
        text = re.sub(r"\b([xyz])\b", lambda m, w=words: w[m[1]], link.text)
        lines.append(f"    let t{n}: {value_type(link.dtype)} = {text};")
    types = [value_type(chain.links[o].dtype) for o in chain.outs]
    if len(types) == 1:
        body = "\n".join([*lines, f"    return t{chain.outs[0]};"])
        return f"fn {function}({', '.join(arguments)}) -> {types[0]} {{\n{body}\n}}"
    fields = ", ".join(f"r{n}: {t}" for n, t in enumerate(types))
    body = "\n".join([*lines, f"    return Results({', '.join(f't{o}' for o in chain.outs)});"])
    return f"struct Results {{ {fields} }}\nfn {function}({', '.join(arguments)}) -> Results {{\n{body}\n}}"


def _argument(a: Arg, link: Link, chain: Chain) -> str:
    if a.role == "number":
        # A number takes the type of the operands beside it; Link.args carry it in ``index`` as a place in the type table.
        return f"({literal(a.number, _TYPES[a.index], link.text.startswith('pow'))})"
    return {"leaf": f"v{a.index}", "step": f"t{a.index}", "value": "v"}[a.role]


_TYPES = tuple(DTYPES)


def number_arg(value: Scalar, dtype: DType) -> Arg:
    """Return a number as an operand of the element type ``dtype``."""
    return Arg("number", _TYPES.index(dtype.name), value, str(value))


class FusedKey(NamedTuple):
    """What distinguishes fused maps.

    ``inplace`` gives, per output, the leaf whose memory it replaces, or -1; ``homes``, per leaf, the leaf whose binding
    it is read by: mostly its own.
    """

    chain: Chain
    count: int
    inplace: tuple[int, ...]
    workgroup: int
    homes: tuple[int, ...]
    first: int = 0  # the index of the first element, of those that are done in parts


@functools.cache
def fused_kernel(key: FusedKey, values: Words | None) -> Kernel:
    """Return the kernel that evaluates a chain for every index, four at a time."""
    chain = key.chain
    replaced = {leaf: n for n, leaf in enumerate(key.inplace) if leaf >= 0}
    stored: list[tuple[str, str, str]] = []
    names: list[str] = []
    for n, leaf in enumerate(chain.leaves):
        wgsl = DTYPES[leaf.dtype].wgsl
        names.append(f"out{replaced[n]}" if n in replaced else f"in{key.homes[n]}")
        if n not in replaced and key.homes[n] == n:
            stored.append((f"in{n}", "r", f"vec4<{wgsl}>" if leaf.linear else wgsl))
    for n, o in enumerate(chain.outs):
        stored.append((f"out{n}", "w", f"vec4<{DTYPES[chain.links[o].dtype].wgsl}>"))
    linear = [n for n, leaf in enumerate(chain.leaves) if leaf.linear]
    lines = [
        f"let a{n} = {names[n]}[{chain.leaves[n].offset // 4}u + i];"
        if chain.leaves[n].offset
        else f"let a{n} = {names[n]}[i];"
        for n in linear
    ]
    tail = f"min(4u * i + {{k}}u, {key.count - 1}u)" if key.count % 4 else "4u * i + {k}u"
    for k, lane in enumerate("xyzw"):
        index = f"{key.first}u + {tail}" if key.first else tail
        loaded = [f"a{n}.{lane} != 0u" if chain.leaves[n].dtype == "bool" else f"a{n}.{lane}" for n in linear]
        lines.append(f"let e{k} = chain({', '.join([index.format(k=k), *loaded])});")
    for n, o in enumerate(chain.outs):
        field = f".r{n}" if len(chain.outs) > 1 else ""
        parts = ", ".join(store(chain.links[o].dtype, f"e{k}{field}") for k in range(4))
        lines.append(f"out{n}[i] = vec4({parts});")
    header = "\n".join(
        [
            bindings(tuple(stored), False),
            f"const WORKGROUP = {key.workgroup}u;",
            f"fn steps() -> u32 {{ return {-(-key.count // 4)}u; }}",
            chain_functions(chain, names, given=frozenset(linear)),
            "fn compute(i: u32) {",
            *(f"    {line}" for line in lines),
            "}",
        ]
    )
    access = "".join(a for _, a, _ in stored)
    return assemble(f"fused map of {len(chain.links)} ops", "map", header, access, False)


def plan_fused_map(
    site: Site, chain: Chain, leaves: Sequence[View], outs: Sequence[View], inplace: Sequence[int]
) -> None:
    """Launch a chain over the elements of its outputs, which are contiguous from the start of their memory."""
    count = outs[0].size
    if count == 0:
        return
    if large(site, *leaves, *outs):
        _in_parts(site, chain, leaves, outs, inplace)
        return
    reads = f"{sum(leaf.linear for leaf in chain.leaves)} of {len(leaves)} operands in order"
    task = Task("map", f"{len(chain.links)} ops, {reads}, {len(outs)} results", (count,), tuple(leaves), tuple(outs), 1)

    def alone(workgroup: int, site: Site, views: Sequence[View]) -> None:
        _launch(site, chain, views[: len(leaves)], views[len(leaves) :], inplace, 0, count, workgroup)

    workgroup = chosen(site, task, workgroups(site), alone)
    _launch(site, chain, leaves, outs, inplace, 0, count, workgroup)


def _launch(
    site: Site,
    chain: Chain,
    leaves: Sequence[View],
    outs: Sequence[View],
    inplace: Sequence[int],
    first: int,
    count: int,
    workgroup: int,
) -> None:
    # Numbers of one buffer, as a call's host numbers are, share a binding: portable devices have eight.
    apart = [not leaf.linear and n not in inplace for n, leaf in enumerate(chain.leaves)]
    kinds = [
        (id(v.buffer), v.dtype.name) if alone else n for n, (v, alone) in enumerate(zip(leaves, apart, strict=True))
    ]
    homes = tuple(kinds.index(kind) for kind in kinds)
    key = FusedKey(chain, count, tuple(inplace), workgroup, homes, first)
    read = [v for n, v in enumerate(leaves) if n not in inplace and homes[n] == n]
    site.launch(fused_kernel, key, (), [*read, *outs], grid(-(-count // (4 * workgroup))))


def _in_parts(site: Site, chain: Chain, leaves: Sequence[View], outs: Sequence[View], inplace: Sequence[int]) -> None:
    """Launch a chain in runs of elements, each on windows of what lies in a row; what is scattered too far is copied."""
    found = list(chain.leaves)
    views = list(leaves)
    for n, (leaf, v) in enumerate(zip(found, views, strict=True)):
        if leaf.linear:
            continue
        seen = window(site, v)
        if seen is None:
            views[n] = copy(site, v)
            found[n] = Leaf(leaf.dtype, True, 0, (), ())
        else:
            views[n], found[n] = seen, leaf._replace(offset=leaf.offset - v.offset + seen.offset)
    for first, count in runs(site, outs[0].size):
        here = list(views)
        for n, (leaf, v) in enumerate(zip(found, views, strict=True)):
            if leaf.linear:
                here[n] = _run(site, v, leaf.offset + first, count)
        moved = [leaf._replace(offset=v.offset) if leaf.linear else leaf for leaf, v in zip(found, here, strict=True)]
        part = Chain(tuple(moved), chain.links, chain.outs)
        _launch(
            site, part, here, [_run(site, v, first, count) for v in outs], inplace, first, count, site.target.workgroup
        )


def _run(site: Site, v: View, start: int, count: int) -> View:
    """Return elements that lie in a row, as they are seen in a window."""
    seen = window(site, View(v.buffer, layout((count,), (1,), start, v.dtype)))
    assert seen is not None
    return seen


@dataclass(frozen=True, slots=True)
class Finish:
    """A chain that another kernel applies to each result before it stores it; its leaves but the value are ``views``.

    ``inplace`` is the leaf whose memory the results replace, or -1; reductions alone take one.
    """

    chain: Chain
    views: tuple[View, ...]
    inplace: int = -1

    @property
    def read(self) -> tuple[View, ...]:
        """What is bound beside the results' memory."""
        return tuple(v for n, v in enumerate(self.views) if n != self.inplace)


def finish_header(chain: Chain | None, dtype: str, inplace: int = -1) -> tuple[list[tuple[str, str, str]], str, str]:
    """Return the bindings and the WGSL of ``finish(i, v)``, and the element type that it stores.

    The leaf ``inplace`` is read from ``out``, which is bound anyway.
    """
    if chain is None:
        kind = value_type(dtype)
        return [], f"fn finish(i: u32, v: {kind}) -> {DTYPES[dtype].wgsl} {{ return {store(dtype, 'v')}; }}", dtype
    names = ["out" if n == inplace else f"more{n}" for n in range(len(chain.leaves))]
    stored = [
        (name, "r", DTYPES[leaf.dtype].wgsl) for name, leaf in zip(names, chain.leaves, strict=True) if name != "out"
    ]
    out = chain.links[chain.outs[0]].dtype
    text = chain_functions(chain, names, value=dtype)
    result = store(out, "chain(i, v)")
    wrapper = f"fn finish(i: u32, v: {value_type(dtype)}) -> {DTYPES[out].wgsl} {{ return {result}; }}"
    return stored, f"{text}\n{wrapper}", out
