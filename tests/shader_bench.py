"""Gives one WGSL body a small header of its own and runs it on the harness; no tensors and no ops in between."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests import shader_report
from wgpu_nn import switches, testing
from wgpu_nn.dtype import DTYPES
from wgpu_nn.gpu import PARAMS_WORDS, Gpu
from wgpu_nn.kernels.source import assemble, body, words

_WGSL = {d.numpy: d.wgsl for d in DTYPES.values() if d.wgsl} | {np.dtype(np.uint32): "u32"}
MARK = -77  # what outputs are filled with beforehand; wraps around in unsigned words
_TURN = 0x9E3779B9
# Hooks by which captured steps extend a body; alone, it runs without. Finishing turns the sign of about every other element,
# which is undone afterwards, so that an element that is finished as another one shows.
_HOOKS = {
    "finish": f"fn finish(i: u32, v: f32) -> f32 {{ return select(v, -v, (i * {_TURN}u) >= 0x80000000u); }}",
    "SUMS": "const SUMS = false;",
    "sums_store": "fn sums_store(n: u32, v: vec4f) { }",
}


class Out:
    """A buffer that the body writes: its shape and type, filled with a mark beforehand."""

    def __init__(self, shape: tuple[int, ...], dtype: type[np.generic] = np.float32, element: str = "") -> None:
        self.memory = testing.Out(shape, dtype, initial=MARK)
        self.element = element


def needs(file: str, written: str = "") -> list[str]:
    """Return the names that a body says its header must supply."""
    comments = re.match(r"(?://[^\n]*\n)+", written or body(file))
    assert comments and "needs:" in comments[0], f"{file} does not say what it needs"
    return re.findall(r"\w+", comments[0].split("needs:")[1])


def run(
    gpu: Gpu,
    file: str,
    buffers: Mapping[str, np.ndarray | Out],
    groups: int,
    *,
    constants: Mapping[str, int | bool] | None = None,
    sizes: Mapping[str, int] | None = None,
    text: str = "",
    elements: Mapping[str, str] | None = None,
    written: str = "",
) -> Any:
    """Launch ``shaders/<file>.wgsl``, or a body that ``file`` has ``written``, and return what it wrote to its Out, or Outs.

    ``groups`` is how many workgroups are needed, and not one more: so many lie in several rows, if they can, and are all
    that run. Then the body runs again with workgroups to spare, which must change nothing. ``constants`` become WGSL
    constants, ``sizes`` functions that return a u32, ``text`` is appended as it is, and ``elements`` gives a buffer's
    element type where it is not that of its array.
    """
    lines = []
    for i, (name, value) in enumerate(buffers.items()):
        dtype = value.memory.dtype if isinstance(value, Out) else value.dtype
        element = (elements or {}).get(name) or (value.element if isinstance(value, Out) else "") or _WGSL[dtype]
        access = "read_write" if isinstance(value, Out) else "read"
        lines.append(f"@group(0) @binding({i}) var<storage, {access}> {name}: array<{element}>;")
    for name, value in (constants or {}).items():
        lines.append(f"const {name} = {str(value).lower() if isinstance(value, bool) else f'{value}u'};")
    given: dict[str, Any] = {n: value.memory if isinstance(value, Out) else value for n, value in buffers.items()}
    if sizes:  # read from memory, as eager launches do: other sizes need no other compilation
        lines.append(words(tuple(sizes), None))
        lines.append(f"@group(0) @binding({len(buffers)}) var<uniform> params: array<vec4u, 16>;")
        given["params"] = np.array([*sizes.values(), *[0] * (PARAMS_WORDS - len(sizes))], np.uint32)
    lines.append(text)
    wanted = needs(file, written)
    header = "\n".join(lines)
    hooks = [n for n in _HOOKS if n in wanted and not re.search(rf"(?:fn|const) {n}\b", header)]
    lines += [_HOOKS[n] for n in hooks]
    header = "\n".join(lines)
    missing = [n for n in wanted if not re.search(rf"(?:fn|const|alias|struct) {n}\b", header)]
    assert not missing, f"{file} needs {missing}"
    access = "".join("w" if isinstance(b, Out) else "r" for b in buffers.values())
    kernel = assemble(f"{file} alone", file, header, access, False, written)
    columns, rows = rows_of(groups)
    shader_report.record(os.environ["PYTEST_CURRENT_TEST"].rpartition(" (")[0], kernel, min(columns, rows))
    shader = testing.Shader(gpu, kernel.code, name=kernel.source)
    trusted = not switches.checked_shaders
    if switches.debug.value == "race":
        shader.find_races(given, (columns, rows, 1))
    found = shader.run(given, (columns, rows, 1), trusted=trusted)
    spare = shader.run(given, (columns, rows + 1, 1), trusted=trusted)
    for one, other in zip(*(x if isinstance(x, tuple) else (x,) for x in (found, spare)), strict=True):
        np.testing.assert_array_equal(one, other, "workgroups to spare have changed it")
    return _unfinished(found) if "finish" in hooks else found


def rows_of(groups: int) -> tuple[int, int]:
    """Return columns and rows of a grid of workgroups: several of both, unless their number is prime or 1."""
    columns = next((n for n in range(2, groups) if groups % n == 0), groups)
    return columns, groups // columns


def _unfinished(found: np.ndarray) -> np.ndarray:
    """Undo what the hook ``finish`` did to elements that were written."""
    turned = (np.arange(found.size, dtype=np.uint32) * np.uint32(_TURN) >= 1 << 31).reshape(found.shape)
    return np.where(turned & (found != MARK), -found, found)
