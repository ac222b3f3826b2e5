"""Gives one WGSL body a small header of its own and runs it on the harness; no tensors and no ops in between."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests import shader_report
from wgpu_nn import switches, testing
from wgpu_nn.dtype import DTYPES
from wgpu_nn.gpu import Gpu
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
_serial = itertools.count()


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
    groups: int | tuple[int, int, int],
    *,
    constants: Mapping[str, int | bool] | None = None,
    sizes: Mapping[str, int] | None = None,
    text: str = "",
    elements: Mapping[str, str] | None = None,
    written: str = "",
) -> Any:
    """Launch ``shaders/<file>.wgsl``, or a body that ``file`` has ``written``, and return what it wrote to its Out, or Outs.

    ``constants`` become WGSL constants, ``sizes`` functions that return a u32, ``text`` is appended as it is, and
    ``elements`` gives a buffer's element type where it is not that of its array.
    """
    lines = []
    for i, (name, value) in enumerate(buffers.items()):
        dtype = value.memory.dtype if isinstance(value, Out) else value.dtype
        element = (elements or {}).get(name) or (value.element if isinstance(value, Out) else "") or _WGSL[dtype]
        access = "read_write" if isinstance(value, Out) else "read"
        lines.append(f"@group(0) @binding({i}) var<storage, {access}> {name}: array<{element}>;")
    for name, value in (constants or {}).items():
        lines.append(f"const {name} = {str(value).lower() if isinstance(value, bool) else f'{value}u'};")
    if sizes:
        lines.append(words(tuple(sizes), tuple(sizes.values())))
    lines.append(text)
    wanted = needs(file, written)
    header = "\n".join(lines)
    hooks = [n for n in _HOOKS if n in wanted and not re.search(rf"(?:fn|const) {n}\b", header)]
    lines += [_HOOKS[n] for n in hooks]
    header = "\n".join(lines)
    missing = [n for n in wanted if not re.search(rf"(?:fn|const|alias|struct) {n}\b", header)]
    assert not missing, f"{file} needs {missing}"
    access = "".join("w" if isinstance(b, Out) else "r" for b in buffers.values())
    kernel = assemble(f"{file} alone {next(_serial)}", file, header, access, False, written)
    shader_report.record(os.environ["PYTEST_CURRENT_TEST"].rpartition(" (")[0], kernel)
    shader = testing.Shader(gpu, kernel.code, name=kernel.source)
    given = {name: value.memory if isinstance(value, Out) else value for name, value in buffers.items()}
    if switches.debug.value == "race":
        shader.find_races(given, groups)
    found = shader.run(given, groups, trusted=not switches.checked_shaders)
    return _unfinished(found) if "finish" in hooks else found


def _unfinished(found: np.ndarray) -> np.ndarray:
    """Undo what the hook ``finish`` did to elements that were written."""
    turned = (np.arange(found.size, dtype=np.uint32) * np.uint32(_TURN) >= 1 << 31).reshape(found.shape)
    return np.where(turned & (found != MARK), -found, found)
