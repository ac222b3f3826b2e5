"""Stores Floats as halves: a kernel's bindings, and each load and store of their elements, in half precision.

Planners, bodies and headers know f32 alone. What a launch binds decides here how it lies in memory: elements of f16 views
are widened where they are loaded, and rounded where they are stored, and all in between stays the text that it was. WGSL
converts nothing by itself, so a load or store that were overlooked would not compile.

Where an adapter has no type f16, halves lie in words all the same, two in each. Four neighbours are two whole words. A single
one is stored by two atomic operations that touch its own half of a word alone, so that invocations which write to both
halves at once do no harm to each other.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from wgpu_nn.errors import KindError
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.plan import View

_BINDING = re.compile(r"(@binding\((\d+)\) var<storage, (\w+)> (\w+): array<)([\w<>]+)(>;)")


class _Storage(NamedTuple):
    """How halves are declared, loaded and stored: WGSL with {name}, the index {at} and the value {v}."""

    element: str
    load: str
    store: str
    functions: str = ""


_FLOAT = _Storage("f16", "f32({name}[{at}])", "{name}[{at}] = f16({v})")
_QUAD = _Storage("vec4<f16>", "vec4f({name}[{at}])", "{name}[{at}] = vec4<f16>({v})")
_CALLS = ("load_{name}(u32({at}))", "store_{name}(u32({at}), {v})")
_PAIRED_LOAD = "fn load_{name}(i: u32) -> f32 {{ return unpack2x16float({word})[i % 2u]; }}"
_PAIRED_STORE = """fn store_{name}(i: u32, v: f32) {{
    let place = i % 2u * 16u;
    atomicAnd(&{name}[i / 2u], ~(0xffffu << place));
    atomicOr(&{name}[i / 2u], pack2x16float(vec2f(v, 0.0)) << place);
}}"""
_PAIRED = {
    "read": _Storage("u32", *_CALLS, _PAIRED_LOAD.replace("{word}", "{name}[i / 2u]")),
    "read_write": _Storage(
        "atomic<u32>", *_CALLS, f"{_PAIRED_LOAD.replace('{word}', 'atomicLoad(&{name}[i / 2u])')}\n{_PAIRED_STORE}"
    ),
}
_PAIRED_QUAD = _Storage(
    "vec2u",
    *_CALLS,
    """fn load_{name}(i: u32) -> vec4f {{ return vec4f(unpack2x16float({name}[i].x), unpack2x16float({name}[i].y)); }}
fn store_{name}(i: u32, v: vec4f) {{ {name}[i] = vec2u(pack2x16float(v.xy), pack2x16float(v.zw)); }}""",
)
_READ_QUAD = _PAIRED_QUAD._replace(functions=_PAIRED_QUAD.functions.partition("\n")[0])
_QUADS = ("vec4f", "vec4<f32>", "vec4u", "vec4<u32>")
_WORDS = {"u32": "u32", "vec4u": "vec4u", "vec4<u32>": "vec4u"}  # Floats that a kernel takes for their bits


def stored(kernel: Kernel, views: Sequence[View], native: bool) -> Kernel:
    """Return the kernel for memory of these views' element types, one view a binding, in order.

    ``native`` says that the adapter has WGSL's f16.
    """
    halves = tuple([n for n, v in enumerate(views) if v.dtype.nbytes == 2])
    return _narrowed(kernel, halves, native) if halves else kernel


def _storage(kernel: Kernel, m: re.Match[str], native: bool) -> _Storage:
    """Return how a binding holds halves."""
    access, name, element = m[3], m[4], m[5]
    if element not in ("f32", "u32", *_QUADS):
        raise KindError(f"{kernel.name}: expected {name} of a type that has halves, got {element}; store it as f32")
    if native:
        found = _QUAD if element in _QUADS else _FLOAT
    elif element in _QUADS:
        found = _READ_QUAD if access == "read" else _PAIRED_QUAD
    else:
        found = _PAIRED[access]
    return found._replace(load=f"bitcast<{_WORDS[element]}>({found.load})") if element in _WORDS else found


@functools.cache
def _narrowed(kernel: Kernel, halves: tuple[int, ...], native: bool) -> Kernel:
    """Return the kernel with the bindings ``halves`` in half precision; lines keep their numbers."""
    found: dict[str, _Storage] = {}

    def declare(m: re.Match[str]) -> str:
        if int(m[2]) not in halves:
            return m[0]
        found[m[4]] = _storage(kernel, m, native)
        return f"{m[1]}{found[m[4]].element}{m[6]}"

    code = _BINDING.sub(declare, kernel.code)
    access = re.compile(rf"//[^\n]*|\b({'|'.join(found)})\[")
    functions = "".join(f"\n{s.functions.format(name=name)}\n" for name, s in found.items() if s.functions)
    text = f"{'enable f16; ' if native else ''}{_converted(code, access, found)}{functions}"
    return replace(kernel, name=f"{kernel.name} f16", code=text)


def _converted(code: str, access: re.Pattern[str], found: Mapping[str, _Storage]) -> str:
    return "".join(_pieces(code, access, found))


def _pieces(code: str, access: re.Pattern[str], found: Mapping[str, _Storage]) -> Iterator[str]:
    """Yield the text with a conversion around each element that is loaded, and around what is stored to one."""
    at = 0
    for m in access.finditer(code):
        if m[1] is None or m.start() < at:  # a comment, or inside of what was converted
            continue
        yield code[at : m.start()]
        end = _end(code, m.end(), "]")
        index, way = _converted(code[m.end() : end], access, found), found[m[1]]
        value = re.match(r"\s*=(?!=)\s*", code[end + 1 :])
        if value is None:
            yield way.load.format(name=m[1], at=index)
            at = end + 1
            continue
        start = end + 1 + value.end()
        at = _end(code, start, ";")
        yield way.store.format(name=m[1], at=index, v=_converted(code[start:at], access, found))
    yield code[at:]


def _end(code: str, start: int, closing: str) -> int:
    """Return where what begins at ``start`` is closed, behind all brackets that it opens itself."""
    depth = 0
    for i in range(start, len(code)):
        if depth == 0 and code[i] == closing:
            return i
        depth += (code[i] in "([{") - (code[i] in ")]}")
    raise KindError(f"shader: expected {closing!r} behind {code[start : start + 40]!r}; is the text whole?")
