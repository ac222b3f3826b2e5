"""Stores Floats as halves: a kernel's bindings, and each load and store of their elements, in half precision.

Planners, bodies and headers know f32 alone. What a launch binds decides here how it lies in memory: elements of f16 views
are widened where they are loaded, and rounded where they are stored, and all in between stays the text that it was. WGSL
converts nothing by itself, so a load or store that were overlooked would not compile.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from wgpu_nn.errors import KindError
from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.plan import View

_BINDING = re.compile(r"(@binding\((\d+)\) var<storage, \w+> (\w+): array<)([\w<>]+)(>;)")
# Per element type of a binding: that of its halves, how a kernel sees what it loads, and what it stores.
_FLOAT, _QUAD = ("f16", "f32({})", "f16({})"), ("vec4<f16>", "vec4f({})", "vec4<f16>({})")
_WORD, _WORDS = ("f16", "bitcast<u32>(f32({}))", ""), ("vec4<f16>", "bitcast<vec4u>(vec4f({}))", "")
_HALVES = {
    "f32": _FLOAT, "vec4f": _QUAD, "vec4<f32>": _QUAD, "u32": _WORD, "vec4u": _WORDS, "vec4<u32>": _WORDS,
}  # fmt: skip


def stored(kernel: Kernel, views: Sequence[View]) -> Kernel:
    """Return the kernel for memory of these views' element types, one view a binding, in order."""
    halves = tuple([n for n, v in enumerate(views) if v.dtype.nbytes == 2])
    return _narrowed(kernel, halves) if halves or "f16(" in kernel.code else kernel


@functools.cache
def _narrowed(kernel: Kernel, halves: tuple[int, ...]) -> Kernel:
    """Return the kernel with the bindings ``halves`` in half precision; lines keep their numbers."""
    found: dict[str, tuple[str, str, str]] = {}

    def declare(m: re.Match[str]) -> str:
        if int(m[2]) not in halves:
            return m[0]
        if m[4] not in _HALVES:
            raise KindError(f"{kernel.name}: expected {m[3]} of a type that has halves, got {m[4]}; store it as f32")
        found[m[3]] = _HALVES[m[4]]
        return f"{m[1]}{_HALVES[m[4]][0]}{m[5]}"

    code = _BINDING.sub(declare, kernel.code)
    if found:
        access = re.compile(rf"//[^\n]*|\b({'|'.join(found)})\[")
        code = _converted(code, access, found)
    return replace(kernel, name=f"{kernel.name} f16", code=f"enable f16; {code}")


def _converted(code: str, access: re.Pattern[str], found: dict[str, tuple[str, str, str]]) -> str:
    return "".join(_pieces(code, access, found))


def _pieces(code: str, access: re.Pattern[str], found: dict[str, tuple[str, str, str]]) -> Iterator[str]:
    """Yield the text with a conversion around each element that is loaded, and around what is stored to one."""
    at = 0
    for m in access.finditer(code):
        if m[1] is None or m.start() < at:  # a comment, or inside of what was converted
            continue
        yield code[at : m.start()]
        end = _end(code, m.end(), "]")
        element = f"{m[0]}{_converted(code[m.end() : end], access, found)}]"
        _, load, store = found[m[1]]
        value = re.match(r"\s*=(?!=)\s*", code[end + 1 :])
        if value is None:
            yield load.format(element)
            at = end + 1
            continue
        start = end + 1 + value.end()
        at = _end(code, start, ";")
        yield f"{element} = {store.format(_converted(code[start:at], access, found))}"
    yield code[at:]


def _end(code: str, start: int, closing: str) -> int:
    """Return where what begins at ``start`` is closed, behind all brackets that it opens itself."""
    depth = 0
    for i in range(start, len(code)):
        if depth == 0 and code[i] == closing:
            return i
        depth += (code[i] in "([{") - (code[i] in ")]}")
    raise KindError(f"shader: expected {closing!r} behind {code[start : start + 40]!r}; is the text whole?")
