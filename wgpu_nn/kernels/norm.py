"""Plans rows normalised by their mean and variance, or by their mean square, and the gradients: a launch for each."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from wgpu_nn.dtype import DTYPES
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.fused import Chain, Finish, finish_header, literal
from wgpu_nn.kernels.map import contiguous, plan_map
from wgpu_nn.kernels.plan import MOST_TURNS, Site, Task, View, Words, bits, chosen, grid, workgroups
from wgpu_nn.kernels.reduce import run_reduce
from wgpu_nn.kernels.source import assemble, bindings, words

SHARED = 256  # invocations of a workgroup that shares rows
MOST_HELD = 8  # vectors of a row that an invocation holds at most: two rows of them stay in registers


class NormKey(NamedTuple):
    """What distinguishes kernels of normalised rows. ``four`` says that all vectors are aligned."""

    op: str
    grad: bool
    weights: int  # 1: a factor; 2: and a summand
    four: bool
    lanes: int  # 0: each row has one invocation, which holds nothing
    held: int
    finish: Chain | None  # what is done to each result before it is stored
    workgroup: int


def held_by(length: int) -> tuple[int, int] | None:
    """Return how many invocations share a row and how many vectors each of them holds; None if the row is too long."""
    quads = -(-length // 4)
    lanes = next((n for n, most in ((8, 4), (32, 4), (SHARED, MOST_HELD)) if quads <= n * most), 0)
    return (lanes, 1 << (-(-quads // lanes) - 1).bit_length()) if lanes else None


def shares(length: int) -> dict[str, tuple[int, int]]:
    """Return by name how a row may be shared, the rules' choice first; nothing if it is too long."""
    rule = held_by(length)
    if rule is None:
        return {}
    quads = -(-length // 4)
    more = ((n, 1 << (-(-quads // n) - 1).bit_length()) for n in (8, 32, 64, 128, SHARED) if n < 4 * quads)
    found = dict.fromkeys((rule, *(way for way in more if way[1] <= MOST_HELD)))
    return {f"{n} hold {held}": (n, held) for n, held in list(found)[:4]}


def _from(name: str, four: bool, index: str) -> str:
    """Return the WGSL of vector ``q`` of a row, or of the weights, whose first element is at ``index``."""
    if four:
        return f"{name}[({index}) / 4u + q]"
    parts = (f"{name}[{index} + min(4u * q + {k}u, length() - 1u)]" for k in range(4))
    return f"vec4f({', '.join(parts)})"


def _put(four: bool, result: str) -> list[str]:
    """Return ``put``, which stores vector ``q`` of a row as far as the row goes."""
    lines = ["fn put(row: u32, q: u32, v: vec4f) {", "    if (4u * q >= length()) { return; }"]
    lines += ["    let at = row * length() + 4u * q;", f"    let w = {result};"]
    parts = [f"finish(at + {k}u, w[{k}])" for k in range(4)]
    if four:
        return [*lines, f"    out[at / 4u] = vec4({', '.join(parts)});", "}"]
    return [*lines, *(f"    if (4u * q + {k}u < length()) {{ out[at + {k}u] = {parts[k]}; }}" for k in range(4)), "}"]


@functools.cache
def norm_kernel(key: NormKey, values: Words | None) -> Kernel:
    """Return the kernel of normalised rows, or of their gradients."""
    element = "vec4f" if key.four else "f32"
    names = ["rows", "length", "epsilon_word", "start"]
    stored = [("source", "r", element)]
    if key.grad:
        names.append("cotangent_start")
        stored.append(("cotangent", "r", element))
    for name in ("weight", "bias")[: key.weights]:
        names.append(f"{name}_start")
        stored.append((name, "r", element))
    more, finish, result = finish_header(key.finish, "f32")
    kind = DTYPES[result].wgsl
    stored += [*more, ("out", "w", f"vec4<{kind}>" if key.four else kind)]
    weight = f" * {_from('weight', key.four, 'weight_start()')}" if key.weights else ""
    bias = f" + {_from('bias', key.four, 'bias_start()')}" if key.weights > 1 else ""
    inside = "" if key.four else " * within(q)"
    lines = [
        "fn epsilon() -> f32 { return bitcast<f32>(epsilon_word()); }",
        "fn outside() -> vec4f { return vec4f(); }",
    ]
    # Less the row's first element: the mean of numbers far from 0 would carry their rounding into the variance.
    first = "source[(start() + row * length()) / 4u].x" if key.four else "source[start() + row * length()]"
    pivot = f" - {first}" if key.op == "layer_norm" else ""
    takes = [("fetch", f"({_from('source', key.four, 'start() + row * length()')}{pivot}){inside}")]
    if key.grad:
        takes.append(
            (
                "fetch_cotangent",
                f"{_from('cotangent', key.four, 'cotangent_start() + row * length()')}{weight}{inside}",
            )
        )
    for name, text in takes:
        lines.append(f"fn {name}(row: u32, q: u32) -> vec4f {{")
        lines += ["    if (4u * q >= length()) { return vec4f(); }", f"    return {text};", "}"]
    lines += [finish, *_put(key.four, "v" if key.grad else f"v{weight}{bias}")]
    header = "\n".join(
        [
            bindings(tuple(stored), values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            f"const LANES = {key.lanes}u;",
            f"const HELD = {key.held}u;",
            f"const CENTRED = {'true' if key.op == 'layer_norm' else 'false'};",
            words(tuple(names), values),
            *lines,
        ]
    )
    file = ("norm_rows" if key.lanes else "norm_alone") + ("_grad" if key.grad else "")
    name = key.op + ("_grad" if key.grad else "")
    return assemble(name, file, header, "".join(a for _, a, _ in stored), values is None)


def run_norm(
    site: Site, op: str, operands: Sequence[Any], attrs: Mapping[str, Any], out: View, end: Finish | None = None
) -> None:
    """Plan the rows of x along the last axis normalised, times weights, plus biases; or the gradient of x.

    ``end`` is applied to each result.
    """
    if out.size == 0:
        return
    grad = op.endswith("_grad")
    xs = [contiguous(site, v) for v in operands]
    xs = [xs[1], xs[0], *xs[2:]] if grad else xs  # x comes first
    length = out.shape[-1]
    rows = out.size // length
    shared = None if site.target.software or site.target.invocations < SHARED else held_by(length)
    alone = site.target.software and length <= MOST_TURNS
    op = op.removesuffix("_grad")
    if shared is None and not alone:
        flat = [v.seen((rows, length), (length, 1)) for v in xs[: 1 + grad]]
        whole = out if end is None else site.empty(out.shape, out.dtype.wide)
        _in_parts(site, op, grad, [*flat, *xs[1 + grad :]], attrs["epsilon"], whole.seen((rows, length), (length, 1)))
        if end is not None:
            run_reduce(site, "max", whole, (), out, None, end)
        return
    four = length % 4 == 0 and all(v.offset % 4 == 0 for v in xs)

    def launch(way: tuple[int, int, int], site: Site, views: Sequence[View], end: Finish | None = None) -> None:
        lanes, held, workgroup = way
        key = NormKey(op, grad, len(xs) - 1 - grad, four, lanes, held, end.chain if end else None, workgroup)
        values = (rows, length, bits(attrs["epsilon"], xs[0].dtype), *(v.offset for v in xs))
        operands = [*views[:-1], *(end.views if end else ()), views[-1]]
        site.launch(norm_kernel, key, values, operands, grid(-(-rows * max(lanes, 1) // workgroup)))

    found = {name: (lanes, held, SHARED) for name, (lanes, held) in shares(length).items()}
    if shared is None:
        found = {name: (0, 1, workgroup) for name, workgroup in workgroups(site).items()}
    traits = f"{op}{' gradient' if grad else ''}, {len(xs)} operands{', in fours' if four else ''}"
    way = chosen(site, Task("rows", traits, (rows, length), tuple(xs), (out,), length), found, launch)
    launch(way, site, [*xs, out], end)


def _in_parts(site: Site, op: str, grad: bool, xs: Sequence[View], epsilon: float, out: View) -> None:
    """Plan rows of any length: statistics, normalised rows and results, each in launches of their own."""
    x, f = xs[0], out.dtype.wide
    rows, length = out.shape
    root = f"inverseSqrt(z + {literal(epsilon, 'f32')})"
    if op == "layer_norm":
        shifted, first = site.empty(x.shape, f), x.seen((rows, 1), (length, 0))
        plan_map(site, "x - y", [f] * 2, [x, first], shifted)  # a mean far from 0 is rounded too far
        x = shifted
        both = site.empty((2, rows), f)
        run_reduce(site, "moments", x, (1,), both)
        mean, var = both.seen((rows, 1), (1, 0)), both.seen((rows, 1), (1, 0), rows)
        centred, given = f"(x - y) * {root}", [x, mean, var]
    else:
        square, var = site.empty(x.shape, f), site.empty((rows, 1), f)
        plan_map(site, "x * x", [f], [x], square)
        run_reduce(site, "mean", square, (1,), var)
        centred, given = f"x * {root.replace('z', 'y')}", [x, var]
    weights = [w.seen((1, length), (0, 1)) for w in xs[1 + grad :]]
    z = out if not grad and not weights else site.empty(x.shape, f)
    plan_map(site, centred, [f] * len(given), given, z)
    if not grad:
        if weights:
            plan_map(site, "x * y + z" if len(weights) == 2 else "x * y", [f] * (1 + len(weights)), [z, *weights], out)
        return
    u = xs[1]
    if weights:
        u = site.empty(x.shape, f)
        plan_map(site, "x * y", [f] * 2, [xs[1], weights[0]], u)
    product, along = site.empty(x.shape, f), site.empty((rows, 1), f)
    plan_map(site, "x * y", [f] * 2, [u, z], product)
    run_reduce(site, "mean", product, (1,), along)
    turned = site.empty(x.shape, f)
    plan_map(site, "x - y * z", [f] * 3, [u, z, along], turned)
    if op == "layer_norm":
        mean_u = site.empty((rows, 1), f)
        run_reduce(site, "mean", u, (1,), mean_u)
        plan_map(site, f"(x - y) * {root}", [f] * 3, [turned, mean_u, var], out)
    else:
        plan_map(site, f"x * {root.replace('z', 'y')}", [f] * 2, [turned, var], out)
