"""Plans map ops and sources: one body, an expression, and the way each operand is walked."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from wgpu_nn.dtype import DTYPES, DType, Kind
from wgpu_nn.kernels.expressions import expression
from wgpu_nn.kernels.plan import Input, Site, View, Words, bits, grid
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.shape import Shape, broadcast_strides, collapse, is_row_major

VALUE = {Kind.FLOAT: "f32", Kind.INT: "i32", Kind.BOOL: "bool"}
NAMES = "xyzw"


class MapKey(NamedTuple):
    """What distinguishes map kernels. ``rank`` -1 means four elements a step, all operands contiguous or single."""

    text: str
    inputs: tuple[tuple[str, str], ...]  # per operand: element type, and v (view), s (number) or 1 (one element)
    out: str
    rank: int
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
    return {"f32": f"bitcast<f32>({word})", "i32": f"bitcast<i32>({word})", "bool": f"({word} != 0u)"}[dtype]


@functools.cache
def map_kernel(key: MapKey, values: Words | None):
    """Return the kernel of a map: four elements a step, or one with coordinates over ``rank`` axes."""
    views = [i for i, (_, how) in enumerate(key.inputs) if how != "s"]
    names = ["steps"]
    vector = key.rank < 0
    lanes = "xyzw"
    element = {d: (f"vec4<{DTYPES[d].wgsl}>" if vector else DTYPES[d].wgsl) for d in DTYPES if DTYPES[d].wgsl}
    stored = [
        (f"in{i}", "r", DTYPES[key.inputs[i][0]].wgsl if key.inputs[i][1] == "1" else element[key.inputs[i][0]])
        for i in views
    ]
    stored.append(("out", "w", element[key.out]))
    arguments = ", ".join(f"{n}: {value_type(d)}" for n, (d, _) in zip(NAMES, key.inputs, strict=False))
    lines = [
        f"fn evaluate(i: u32{', ' if arguments else ''}{arguments}) -> {value_type(key.out)} {{ return {key.text}; }}"
    ]
    step: list[str] = []
    if vector:
        for i, (dtype, how) in enumerate(key.inputs):
            if how == "v":
                names.append(f"start{i}")
                step.append(f"let a{i} = in{i}[start{i}() + i];")
            elif how == "1":
                names.append(f"start{i}")
                step.append(f"let a{i} = {load(f'in{i}', dtype, f'start{i}()')};")
            else:
                names.append(f"number{i}")
                step.append(f"let a{i} = {from_word(dtype, f'number{i}()')};")
        parts: list[str] = []
        for k, lane in enumerate(lanes):
            given = [
                (f"a{i}.{lane} != 0u" if dtype == "bool" else f"a{i}.{lane}") if how == "v" else f"a{i}"
                for i, (dtype, how) in enumerate(key.inputs)
            ]
            parts.append(store(key.out, f"evaluate({', '.join([f'4u * i + {k}u', *given])})"))
        step.append(f"out[i] = {element[key.out]}({', '.join(parts)});")
    else:
        names += [f"size{d}" for d in range(key.rank)]
        walked = [*(i for i, (_, how) in enumerate(key.inputs) if how == "v"), -1]
        tag = {i: (f"in{i}" if i >= 0 else "out") for i in walked}
        for i in walked:
            names.append(f"{tag[i]}_start")
            names += [f"{tag[i]}_stride{d}" for d in range(key.rank)]
            step.append(f"var at_{tag[i]} = {tag[i]}_start();")
        step.append("var rest = i;")
        for d in reversed(range(key.rank)):
            coordinate = "rest" if d == 0 else f"rest % size{d}()"
            step.append(f"let c{d} = {coordinate};")
            if d:
                step.append(f"rest /= size{d}();")
            step += [f"at_{tag[i]} += c{d} * {tag[i]}_stride{d}();" for i in walked]
        for i, (dtype, how) in enumerate(key.inputs):
            if how == "v":
                step.append(f"let a{i} = {load(f'in{i}', dtype, f'at_in{i}')};")
            elif how == "1":
                names.append(f"start{i}")
                step.append(f"let a{i} = {load(f'in{i}', dtype, f'start{i}()')};")
            else:
                names.append(f"number{i}")
                step.append(f"let a{i} = {from_word(dtype, f'number{i}()')};")
        call = f"evaluate({', '.join(['i', *(f'a{i}' for i in range(len(key.inputs)))])})"
        step.append(f"out[at_out] = {store(key.out, call)};")
    lines.append("fn compute(i: u32) {\n    " + "\n    ".join(step) + "\n}")
    header = "\n".join(
        [
            bindings(tuple(stored), values is None),
            f"const WORKGROUP = {key.workgroup}u;",
            words(tuple(names), values),
            *lines,
        ]
    )
    name = f"map {key.text} " + ("x4" if vector else f"rank {key.rank}")
    return assemble(name, "map", header, "r" * len(views) + "w", values is None)


def plan_map(site: Site, text: str, types: Sequence[DType], inputs: Sequence[Input], out: View) -> None:
    """Launch ``out[i] = text(inputs[i]...)``; inputs broadcast to ``out``, and ``types`` are their element types."""
    if out.size == 0:
        return
    spread = [broadcast_strides(v.shape, v.strides, out.shape) if isinstance(v, View) else () for v in inputs]
    ways = tuple(
        (t.name, "s" if not isinstance(v, View) else "1" if v.size == 1 else "v")
        for t, v in zip(types, inputs, strict=True)
    )
    workgroup = site.target.workgroup
    views = [v for v in inputs if isinstance(v, View)]
    if _vectors(ways, inputs, spread, out):
        steps = -(-out.size // 4)
        key = MapKey(text, ways, out.dtype.name, -1, workgroup)
        values = [steps]
        for (_, how), v, t in zip(ways, inputs, types, strict=True):
            if isinstance(v, View):
                values.append(v.offset // 4 if how == "v" else v.offset)
            else:
                values.append(bits(v, t))
        site.launch(map_kernel, key, tuple(values), [*views, out], grid(-(-steps // workgroup)))
        return
    walked = [s for s, (_, how) in zip(spread, ways, strict=True) if how == "v"]
    sizes, strides = collapse(out.shape, [*walked, out.strides])
    if not sizes:
        sizes, strides = (1,), [(0,) for _ in strides]
    key = MapKey(text, ways, out.dtype.name, len(sizes), workgroup)
    offsets = [v.offset for v, (_, how) in zip(inputs, ways, strict=True) if isinstance(v, View) and how == "v"]
    values = [out.size, *sizes]
    for start, stride in zip([*offsets, out.offset], strides, strict=True):
        values += [start, *stride]
    for (_, how), v, t in zip(ways, inputs, types, strict=True):
        if how == "1" and isinstance(v, View):
            values.append(v.offset)
        elif how == "s" and not isinstance(v, View):
            values.append(bits(v, t))
    site.launch(map_kernel, key, tuple(values), [*views, out], grid(-(-out.size // workgroup)))


def _vectors(ways: Sequence[tuple[str, str]], inputs: Sequence[Input], spread: Sequence[Shape], out: View) -> bool:
    """Say whether four elements a step fit: contiguous operands at multiples of four, and the whole of a buffer to write.

    The last step may reach up to three elements beyond the end; buffers are multiples of 16 bytes.
    """
    if out.offset or not out.contiguous:
        return False
    for (_, how), v, strides in zip(ways, inputs, spread, strict=True):
        if how == "v" and isinstance(v, View) and (v.offset % 4 or not is_row_major(out.shape, strides)):
            return False
    return True


def run_map(site: Site, op: str, inputs: Sequence[Input], out: View) -> None:
    """Plan one map op or source."""
    types = operand_types(op, inputs, out.dtype)
    first = types[1] if op == "where" else types[0] if types else out.dtype
    plan_map(site, expression(op, first, out.dtype), types, inputs, out)


def operand_types(op: str, inputs: Sequence[Input], out: DType) -> list[DType]:
    """Return each operand's element type; numbers take that of the tensors beside them."""
    if op in ("uniform", "normal", "arange"):
        return [DTYPES["i32"]] * len(inputs)
    beside = next((v.dtype for v in (inputs[1:] if op == "where" else inputs) if isinstance(v, View)), out)
    return [v.dtype if isinstance(v, View) else beside for v in inputs]


def copy(site: Site, x: View, out: View | None = None) -> View:
    """Return ``x`` as a fresh contiguous view, or write it into ``out``."""
    target = site.empty(x.shape, x.dtype) if out is None else out
    plan_map(site, "x", [x.dtype], [x], target)
    return target


def contiguous(site: Site, x: View) -> View:
    """Return ``x`` itself if it is contiguous, else a copy that is."""
    return x if x.contiguous else copy(site, x)


def dense(site: Site, x: View) -> View:
    """Return ``x`` itself if it is contiguous from the start of its buffer, else a copy that is."""
    return x if x.contiguous and x.offset == 0 else copy(site, x)
