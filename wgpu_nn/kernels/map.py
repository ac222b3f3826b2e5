"""Plans map ops and sources: one body, an expression, and the way each operand is walked."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from wgpu_nn.dtype import DTYPES, DType, Kind
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.expressions import expression
from wgpu_nn.kernels.plan import Input, Site, View, Words, bits, grid
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.kernels.windows import alike, large, parts, window
from wgpu_nn.ops import OPS, Category
from wgpu_nn.shape import broadcast_strides, collapse, is_row_major

VALUE = {Kind.FLOAT: "f32", Kind.INT: "i32", Kind.BOOL: "bool"}
NAMES = "xyzw"


class MapKey(NamedTuple):
    """What distinguishes map kernels; see ``map_kernel`` for ``rank`` and ``quads``."""

    text: str
    inputs: tuple[tuple[str, str], ...]  # per operand: element type, and v (view), s (number) or 1 (one element)
    out: str
    rank: int
    quads: bool
    workgroup: int


def value_type(dtype: str) -> str:
    return VALUE[DTYPES[dtype].kind]


def load(name: str, dtype: str, index: str) -> str:
    """Return the WGSL that loads one element; a Bool is a word other than 0."""
    return f"{name}[{index}] != 0u" if dtype == "bool" else f"{name}[{index}]"


def store(dtype: str, value: str) -> str:
    return f"select(0u, 1u, {value})" if dtype == "bool" else value


def from_word(dtype: str, word: str) -> str:
    """Return the WGSL that turns a parameter word into a value."""
    return f"({word} != 0u)" if dtype == "bool" else f"bitcast<{value_type(dtype)}>({word})"


@functools.cache
def map_kernel(key: MapKey, values: Words | None) -> Kernel:
    """Return the kernel of a map.

    Three ways to walk: vectors (rank -1) load and store four neighbours at once; ``quads`` compute four neighbours of
    a contiguous output from strided inputs, so that coordinates are divided out once; else one element a step.
    """
    views = [i for i, (_, how) in enumerate(key.inputs) if how != "s"]
    vector = key.rank < 0
    wide = {d: f"vec4<{t.wgsl}>" for d, t in DTYPES.items() if t.wgsl}
    stored = [
        (f"in{i}", "r", wide[d] if vector and how == "v" else DTYPES[d].wgsl)
        for i, (d, how) in enumerate(key.inputs)
        if how != "s"
    ]
    stored.append(("out", "w", wide[key.out] if vector or key.quads else DTYPES[key.out].wgsl))
    arguments = "".join(f", {n}: {value_type(d)}" for n, (d, _) in zip(NAMES, key.inputs, strict=False))
    names, step = _vector_step(key) if vector else _strided_step(key)
    header = "\n".join(
        [
            bindings(tuple(stored), values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            words(tuple(names), values),
            f"fn evaluate(i: u32{arguments}) -> {value_type(key.out)} {{ return {key.text}; }}",
            "fn compute(i: u32) {",
            *(f"    {line}" for line in step),
            "}",
        ]
    )
    how = "x4" if vector else f"rank {key.rank}" + (" x4" if key.quads else "")
    return assemble(f"map {key.text} {how}", "map", header, "r" * len(views) + "w", values is None)


def _singles(key: MapKey) -> tuple[list[str], list[str]]:
    """Return the words and the lines that load numbers and operands of one element, once a step."""
    names: list[str] = []
    lines: list[str] = []
    for i, (dtype, how) in enumerate(key.inputs):
        if how == "1":
            names.append(f"start{i}")
            lines.append(f"let a{i} = {load(f'in{i}', dtype, f'start{i}()')};")
        elif how == "s":
            names.append(f"number{i}")
            lines.append(f"let a{i} = {from_word(dtype, f'hidden(number{i}())')};")
    return names, lines


def _vector_step(key: MapKey) -> tuple[list[str], list[str]]:
    names, lines = _singles(key)
    names = ["steps", *names, *(f"start{i}" for i, (_, how) in enumerate(key.inputs) if how == "v")]
    lines += [f"let a{i} = in{i}[start{i}() + i];" for i, (_, how) in enumerate(key.inputs) if how == "v"]
    parts: list[str] = []
    for k, lane in enumerate("xyzw"):
        given = [f"4u * i + {k}u"]
        for i, (dtype, how) in enumerate(key.inputs):
            given.append(f"a{i}" if how != "v" else f"a{i}.{lane} != 0u" if dtype == "bool" else f"a{i}.{lane}")
        parts.append(store(key.out, f"evaluate({', '.join(given)})"))
    lines.append(f"out[i] = vec4({', '.join(parts)});")
    return names, lines


def _strided_step(key: MapKey) -> tuple[list[str], list[str]]:
    walked = [f"in{i}" for i, (_, how) in enumerate(key.inputs) if how == "v"] + ([] if key.quads else ["out"])
    axes = range(key.rank)
    names, lines = _singles(key)
    names = ["steps", "total", *(f"size{d}" for d in axes), *names]
    for w in walked:
        names += [f"{w}_start", *(f"{w}_stride{d}" for d in axes)]
        lines.append(f"var at_{w} = {w}_start();")
    lines.append(f"var rest = {'4u * i' if key.quads else 'i'};")
    for d in reversed(axes):
        lines.append(f"{'var' if key.quads else 'let'} c{d} = {'rest' if d == 0 else f'rest % size{d}()'};")
        if d:
            lines.append(f"rest /= size{d}();")
        lines += [f"at_{w} += c{d} * {w}_stride{d}();" for w in walked]
    if not key.quads:
        lines.append(f"out[at_out] = {_element(key, 'i')};")
        return names, lines
    parts: list[str] = []
    for k in range(4):
        if k:
            lines += [f"if (4u * i + {k}u < total()) {{", *(f"    {line}" for line in _advance(key.rank, walked)), "}"]
        lines.append(f"let q{k} = {_element(key, f'4u * i + {k}u')};")
        parts.append(f"q{k}")
    return names, [*lines, f"out[i] = vec4({', '.join(parts)});"]


def _element(key: MapKey, i: str) -> str:
    given = [f"a{n}" if how != "v" else load(f"in{n}", d, f"at_in{n}") for n, (d, how) in enumerate(key.inputs)]
    return store(key.out, f"evaluate({', '.join([i, *given])})")


def _advance(rank: int, walked: Sequence[str], d: int = -1) -> list[str]:
    """Return the lines that step coordinates and addresses to the next element, carrying from the last axis on."""
    d = rank - 1 if d < 0 else d
    lines = [f"c{d} += 1u;", *(f"at_{w} += {w}_stride{d}();" for w in walked)]
    if d:
        lines.append(f"if (c{d} == size{d}()) {{")
        lines += [f"    c{d} = 0u;", *(f"    at_{w} -= size{d}() * {w}_stride{d}();" for w in walked)]
        lines += [*(f"    {line}" for line in _advance(rank, walked, d - 1)), "}"]
    return lines


def plan_map(
    site: Site, text: str, types: Sequence[DType], inputs: Sequence[Input], out: View, part: bool = False
) -> None:
    """Launch ``out[i] = text(inputs[i]...)``; inputs broadcast to ``out``, and ``types`` are their element types.

    ``part`` says that what lies behind ``out`` must stay as it is.
    """
    if out.size == 0:
        return
    if large(site, out, *(v for v in inputs if isinstance(v, View))):
        _in_parts(site, text, types, inputs, out)
        return
    spread = [broadcast_strides(v.shape, v.strides, out.shape) if isinstance(v, View) else () for v in inputs]
    ways = tuple(
        (t.name, "s" if not isinstance(v, View) else "1" if v.size == 1 else "v")
        for t, v in zip(types, inputs, strict=True)
    )
    singles = [
        v.offset if isinstance(v, View) else bits(v, t)
        for (_, how), v, t in zip(ways, inputs, types, strict=True)
        if how != "v"
    ]
    walked = [(v, s) for (_, how), v, s in zip(ways, inputs, spread, strict=True) if how == "v" and isinstance(v, View)]
    workgroup = site.target.workgroup
    views = [v for v in inputs if isinstance(v, View)]
    # The last step may reach up to three elements beyond the end: buffers are multiples of 16 bytes.
    fresh = out.offset == 0 and out.contiguous and not (part and out.size % 4)
    if fresh and all(v.offset % 4 == 0 and is_row_major(out.shape, s) for v, s in walked):
        steps = -(-out.size // 4)
        key = MapKey(text, ways, out.dtype.name, -1, False, workgroup)
        values = [steps, *singles, *(v.offset // 4 for v, _ in walked)]
        site.launch(map_kernel, key, tuple(values), [*views, out], grid(-(-steps // workgroup)))
        return
    sizes, strides = collapse(out.shape, [*(s for _, s in walked), *([] if fresh else [out.strides])])
    steps = -(-out.size // 4) if fresh else out.size
    key = MapKey(text, ways, out.dtype.name, max(len(sizes), 1), fresh, workgroup)
    values = [steps, out.size, *(sizes or (1,)), *singles]
    for v, stride in zip([*(v for v, _ in walked), out], strides, strict=False):
        values += [v.offset, *(stride or (0,))]
    site.launch(map_kernel, key, tuple(values), [*views, out], grid(-(-steps // workgroup)))


def _in_parts(site: Site, text: str, types: Sequence[DType], inputs: Sequence[Input], out: View) -> None:
    """Plan a map whose operands or result cannot be seen as a whole; numbers are given to every part."""
    rank = len(out.shape)
    views = [v.seen(out.shape, broadcast_strides(v.shape, v.strides, out.shape)) for v in inputs if isinstance(v, View)]
    for part in parts(site, text, out.shape, [*views, out], [alike(rank)] * (len(views) + 1)):
        *some, target = part.views
        given = iter(some)
        operands = [next(given) if isinstance(v, View) else v for v in inputs]
        plan_map(site, text, types, operands, target, part=True)


def _source_in_parts(site: Site, text: str, types: Sequence[DType], inputs: Sequence[Input], out: View) -> None:
    """Plan a source, which may compute from an element's place, in parts that know where they start."""
    start = NAMES[len(inputs)]
    text = re.sub(r"\bi\b", f"(i + u32({start}))", text)
    flat = out.seen((out.size,), (1,))
    for part in parts(site, text, flat.shape, [flat], [alike(1)]):
        operands = [*inputs, part.starts[0]]
        plan_map(site, text, [*types, DTYPES["i32"]], operands, part.views[0], part=True)


def run_map(site: Site, op: str, inputs: Sequence[Input], out: View) -> None:
    """Plan one map op or source."""
    types = operand_types(op, inputs, out.dtype)
    first = types[1] if op == "where" else types[0] if types else out.dtype
    text = expression(op, first, out.dtype)
    if OPS[op].category is Category.SOURCE and large(site, out):
        _source_in_parts(site, text, types, inputs, out)
    else:
        plan_map(site, text, types, inputs, out)


def operand_types(op: str, inputs: Sequence[Input], out: DType) -> list[DType]:
    """Return each operand's element type; numbers take that of the tensors beside them."""
    if op in ("uniform", "normal", "arange"):
        return [DTYPES["i32"]] * len(inputs)
    beside = next((v.dtype for v in (inputs[1:] if op == "where" else inputs) if isinstance(v, View)), out)
    return [v.dtype if isinstance(v, View) else beside for v in inputs]


def copy(site: Site, x: View, out: View | None = None, part: bool = False) -> View:
    """Return ``x`` as a fresh contiguous view, or write it into ``out``, which may be part of a tensor."""
    target = site.empty(x.shape, x.dtype) if out is None else out
    plan_map(site, "x", [x.dtype], [x], target, part)
    return target


def placed(site: Site, out: View, plan: Callable[[View], None]) -> None:
    """Let ``plan`` write ``out``, or, if that is not contiguous from the start of what can be seen, a tensor for it."""
    target = window(site, out)
    if target is not None and target.offset == 0 and target.contiguous and target.size % 4 == 0:
        plan(target)
        return
    target = site.empty(out.shape, out.dtype)
    plan(target)
    copy(site, target, out, part=True)


def contiguous(site: Site, x: View) -> View:
    """Return ``x`` itself if it is contiguous from a whole word on, where buffers can be copied, else a copy that is."""
    return x if x.contiguous and x.start % 4 == 0 else copy(site, x)


def dense(site: Site, x: View) -> View:
    """Return ``x`` itself if it is contiguous from the start of its buffer, else a copy that is."""
    return x if x.contiguous and x.offset == 0 else copy(site, x)
