"""Reads the WGSL files, and joins a body with its header and the library functions that both call."""

from __future__ import annotations

import functools
import re
import struct
from pathlib import Path

from wgpu_nn.gpu import Kernel

_FUNCTION = re.compile(r"^(?://[^\n]*\n)*(?:fn|const|struct) (\w+)", re.MULTILINE)
_WORD = re.compile(
    r"^fn (\w+)\(\) -> u32 \{ return (?:params\[(\d+)\]\.([xyzw])|(\d+)u); \}$",
    re.MULTILINE,
)
_NAME = re.compile(r"\b[A-Za-z_]\w*\b")


@functools.cache
def folder() -> Path:
    """Return the folder of the WGSL files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "shaders"
    return installed if installed.is_dir() else package.parent / "shaders"


@functools.cache
def body(name: str) -> str:
    """Return the text of ``shaders/<name>.wgsl``."""
    return (folder() / f"{name}.wgsl").read_text(encoding="utf-8")


@functools.cache
def library() -> dict[str, str]:
    """Return every function, constant and structure of shaders/lib by name, with the comment above it."""
    found: dict[str, str] = {}
    for path in sorted((folder() / "lib").glob("*.wgsl")):
        found |= parts(path.read_text(encoding="utf-8"))
    return found


def parts(text: str) -> dict[str, str]:
    """Return the functions, constants and structures of a file of shaders/lib by name, with the comments above them."""
    matches = ((_FUNCTION.match(part), part.strip()) for part in text.split("\n\n"))
    return {match[1]: part for match, part in matches if match}


@functools.cache
def _calls(name: str) -> frozenset[str]:
    return frozenset(_NAME.findall(re.sub(r"//[^\n]*", "", library()[name]))) & library().keys() - {name}


def used(text: str) -> list[str]:
    """Return the library functions that ``text`` calls, and those that they call."""
    todo = sorted(set(_NAME.findall(re.sub(r"//[^\n]*", "", text))) & library().keys())
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(_calls(name))
    return sorted(found)


def assemble(name: str, file: str, header: str, access: str, params: bool, written: str = "") -> Kernel:
    """Return the kernel made of ``shaders/<file>.wgsl`` and of a header behind it; ``file`` may have ``written`` the body.

    The body comes first, so that the compiler's line numbers are the file's.
    """
    text = f"{written or body(file)}\n// --- header: {name}\n{header}\n"
    functions = "\n\n".join(library()[f] for f in used(text))
    return Kernel(name, f"{text}\n{functions}\n", access, params, file if written else f"{file}.wgsl")


def words(names: tuple[str, ...], values: tuple[int, ...] | None) -> str:
    """Return one WGSL function per name: it reads a word of the launch's parameters, or is a constant.

    Eager launches read parameters, so that new sizes compile nothing; captured ones have constants, so that the
    compiler can fold them.
    """
    lines: list[str] = []
    for k, name in enumerate(names):
        value = f"params[{k // 4}].{'xyzw'[k % 4]}" if values is None else f"{values[k] & 0xFFFFFFFF}u"
        lines.append(f"fn {name}() -> u32 {{ return {value}; }}")
    return "\n".join(lines)


def sizes(code: str, params: bytes = b"") -> dict[str, int]:
    """Return what ``words`` wrote into a kernel's text, by name, in order; eager launches have the values in ``params``."""
    found: dict[str, int] = {}
    given = struct.unpack(f"<{len(params) // 4}I", params)
    for name, place, lane, constant in _WORD.findall(code.partition("\n// --- header: ")[2]):
        if constant:
            found[name] = int(constant)
        elif given:
            found[name] = given[4 * int(place) + "xyzw".index(lane)]
    return found


def bindings(stored: tuple[tuple[str, str, str], ...], params: bool) -> str:
    """Return the binding declarations of (name, access r or w, element type), in order, then of the parameters."""
    lines = [
        f"@group(0) @binding({i}) var<storage, {'read' if access == 'r' else 'read_write'}> {name}: array<{element}>;"
        for i, (name, access, element) in enumerate(stored)
    ]
    if params:
        lines.append(f"@group(0) @binding({len(stored)}) var<uniform> params: array<vec4u, 16>;")
    # Compilers may take x * 0 for 0 and leave x / 0 undefined where they see the 0: this hides a number from them.
    lines.append(f"fn hidden(word: u32) -> u32 {{ return select(word, ~word, arrayLength(&{stored[0][0]}) == 0u); }}")
    return "\n".join(lines)
