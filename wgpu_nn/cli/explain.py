"""``wgpu-nn explain matmul 4096 4096 4096``: which kernels an op of these sizes launches, without launching them."""

from __future__ import annotations

import argparse
import ast
import re
import textwrap
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wgpu_nn import switches
from wgpu_nn.cli.command import Command
from wgpu_nn.cli.info import size as nbytes
from wgpu_nn.dtype import BOOL, F16, F32, DType
from wgpu_nn.errors import AdapterError, ConfigError
from wgpu_nn.ops import OPS, Category

Known = Callable[[str], str | None]  # the name that was chosen for a task, by what it is remembered by
Shapes = list[tuple[tuple[int, ...], DType]]
CONV = "N C H W OUT KERNEL [PAD]"
# The portable limits of WebGPU (spec section 3.6.2), which every adapter keeps.
PORTABLE: dict[str, Any] = {"invocations": 256, "storage": 16384, "bindings": 8}
WIDTH = 110
_CONSTANT = re.compile(r"^const (\w+)(?:\s*:\s*\w+)? = ([^;]+);", re.MULTILINE)
_BINDING = re.compile(r"var<(?:storage, (\w+)|uniform)> (\w+): array<(.+)>;")
_WORKGROUP = re.compile(r"@workgroup_size\(([^)]*)\)")


@dataclass(frozen=True, slots=True)
class Asked:
    """An op with its operands' shapes and element types, and its attributes."""

    op: str
    operands: Shapes
    attrs: Mapping[str, Any]


def _matmul(op: str, sizes: Sequence[int], axes: Sequence[int]) -> Asked:
    *batch, m, k, n = sizes
    return Asked(op, [((*batch, m, k), F32), ((*batch, k, n), F32)], {})


def _conv(op: str, sizes: Sequence[int], axes: Sequence[int]) -> Asked:
    n, c, h, w, o, k, pad = (*sizes, 0)[:7]
    if k > min(h, w) + 2 * pad:
        raise ConfigError(f"explain: {op}: expected a kernel within the padded image, got {k} for {h} x {w}, pad {pad}")
    x, weight, out = (n, c, h, w), (o, c, k, k), (n, o, h + 2 * pad - k + 1, w + 2 * pad - k + 1)
    attrs: dict[str, Any] = {
        "stride": (1, 1), "padding": ((pad, pad), (pad, pad)), "dilation": (1, 1), "groups": 1,
    }  # fmt: skip
    shapes = {
        "conv2d": ([x, weight], None),
        "conv2d_input_grad": ([out, weight], x),
        "conv2d_weight_grad": ([x, out], weight),
    }
    operands, shape = shapes[op]
    return Asked(op, [(s, F32) for s in operands], attrs if shape is None else {**attrs, "shape": shape})


def _map(op: str, sizes: Sequence[int], axes: Sequence[int]) -> Asked:
    first = BOOL if op.startswith("logical_") or op == "where" else F32
    kinds = [first, *[BOOL if op.startswith("logical_") else F32] * (OPS[op].arity[0] - 1)]
    return Asked(op, [(tuple(sizes), kind) for kind in kinds], {})


def _reduce(op: str, sizes: Sequence[int], axes: Sequence[int]) -> Asked:
    kind = BOOL if op in ("any", "all") else F32
    return Asked(op, [(tuple(sizes), kind)], {"axes": _axes(op, sizes, axes), "keepdim": False})


def _rows(op: str, sizes: Sequence[int], axes: Sequence[int]) -> Asked:
    return Asked(op, [(tuple(sizes), F32)], {"axis": _axes(op, sizes, axes)[-1]})


def _axes(op: str, sizes: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    found = tuple(sorted({a % len(sizes) for a in axes if -len(sizes) <= a < len(sizes)}))
    if len(found) != len(set(axes)):
        raise ConfigError(f"explain: {op}: expected --axes of {list(sizes)}, got {list(axes)}")
    return found


@dataclass(frozen=True, slots=True)
class Form:
    """How the sizes of an op are given, and the least and most numbers of them."""

    sizes: str
    count: tuple[int, int]
    asked: Callable[[str, Sequence[int], Sequence[int]], Asked]


ANY = Form("the shape of the operands", (1, 8), _map)
FORMS: Mapping[str, Form] = {
    "matmul": Form("[BATCH] M K N", (3, 6), _matmul),
    **dict.fromkeys(("conv2d", "conv2d_input_grad", "conv2d_weight_grad"), Form(CONV, (6, 7), _conv)),
    **dict.fromkeys(("softmax", "log_softmax"), Form("the shape of the operand, and perhaps --axes", (1, 8), _rows)),
    **{n: ANY for n, row in OPS.items() if row.category is Category.MAP and n != "cast"},
    **{
        n: Form("the shape of the operand, and perhaps --axes", (1, 8), _reduce)
        for n, row in OPS.items()
        if row.category is Category.REDUCE
    },
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``wgpu-nn explain``."""
    parser.add_argument("op", help="matmul, conv2d, softmax, sum, add, ...")
    parser.add_argument("sizes", nargs="*", type=int, help=f"matmul: [BATCH] M K N; conv2d: {CONV}; others: a shape")
    parser.add_argument(
        "--axes", type=int, nargs="+", default=[-1], metavar="AXIS", help="what a reduction folds (the last)"
    )
    parser.add_argument(
        "--adapter",
        metavar="WHICH",
        help="software or gpu (with the limits that every adapter keeps), or an adapter's index or name (this machine's best)",
    )
    parser.add_argument("--eager", action="store_true", help="as eager mode launches it, not a captured step")
    parser.add_argument("--half", action="store_true", help="with operands in f16")
    parser.add_argument("--wgsl", action="store_true", help="print the kernels' whole texts")


def run(args: argparse.Namespace) -> int:
    """Print what would be launched."""
    asked = asked_of(args.op, args.sizes, args.axes)
    if args.half:
        asked = replace(asked, operands=[(shape, F16 if dtype == F32 else dtype) for shape, dtype in asked.operands])
    target, title = target_of(args.adapter)
    print("\n".join(explain(asked, target, title, args.eager, args.wgsl, measured(args.adapter))))
    return 0


def asked_of(op: str, sizes: Sequence[int], axes: Sequence[int]) -> Asked:
    """Return the op that words of the command line mean."""
    form = FORMS.get(op)
    if form is None:
        known = ", ".join(n for n in FORMS if FORMS[n] is not ANY)
        raise ConfigError(f"explain: expected {known}, or a map op (add, exp, ...), got {op!r}")
    least, most = form.count
    if not least <= len(sizes) <= most or min(sizes[:6]) < 1 or min(sizes) < 0:
        got = " ".join(map(str, sizes)) or "none"
        raise ConfigError(f"explain: {op}: expected {form.sizes}, got {got}; wgpu-nn explain matmul 64 1024 512")
    return form.asked(op, sizes, axes)


def target_of(wanted: str | None) -> tuple[Any, str]:
    """Return the target that variants are chosen for, and what it is; no device is opened."""
    from wgpu_nn.backends.wgpu import target_from
    from wgpu_nn.gpu import choose
    from wgpu_nn.gpu.limits import limits_of
    from wgpu_nn.kernels import Target

    if wanted in ("software", "gpu"):
        return Target(software=wanted == "software", **PORTABLE), f"any {wanted} adapter, by WebGPU's least limits"
    try:
        adapter, _ = choose(wanted)
    except AdapterError as error:
        raise AdapterError(f"{error}; --adapter gpu and --adapter software need none") from None
    return target_from(adapter.kind == "software", limits_of(adapter.limits)), str(adapter)


def measured(wanted: str | None) -> Known:
    """Return what autotune remembers of an adapter; of a kind of adapters, nothing."""
    from wgpu_nn.backends.choices import known_choices
    from wgpu_nn.gpu import choose

    return _nothing if wanted in ("software", "gpu") else known_choices(choose(wanted)[0]).get


def _nothing(key: str) -> None:
    return None


def explain(asked: Asked, target: Any, title: str, eager: bool, wgsl: bool, known: Known = _nothing) -> list[str]:
    """Return the lines that say what is launched, and why these kernels; ``known`` are choices that were measured."""
    from wgpu_nn.backends.recipe import execute
    from wgpu_nn.backends.tuner import remembered_by
    from wgpu_nn.graph.plan import StaticSite
    from wgpu_nn.kernels import Grid, Template, View, Words
    from wgpu_nn.kernels.plan import Candidate, Task
    from wgpu_nn.kernels.source import sizes
    from wgpu_nn.ops import DEFAULT_DTYPES, infer

    class Site(StaticSite):
        """Keeps what distinguishes a kernel beside the launch of it."""

        def launch(self, template: Template, key: Hashable, words: Words, views: Sequence[View], grid: Grid) -> None:
            keys.append((template, key, views))
            super().launch(template, key, words, views, grid)

        def choose(self, task: Task, candidates: Sequence[Candidate]) -> int:
            names = [c.name for c in candidates]
            best = known(remembered_by(task, target))
            n = names.index(best) if best in names and switches.autotune.value == "on" else 0
            why = "as measured on this adapter" if n else "by rule"
            if best in names[1:] and not n:
                why += f" (measured: {best}, which WGPU_NN_AUTOTUNE=on takes)"
            choices.append(f"{task.family}: {names[n]}, {why}, of {len(names)}: {'; '.join(names)}")
            return n

    choices: list[str] = []
    keys: list[tuple[Any, Any, Sequence[View]]] = []
    site = Site(target, tuned=not eager)
    operands = [site.empty(shape, dtype) for shape, dtype in asked.operands]
    out = infer(asked.op, [v.spec for v in operands], asked.attrs, DEFAULT_DTYPES)
    execute(site, asked.op, operands, asked.attrs, out)
    shown = ", ".join(f"{v.dtype}{list(v.shape)}" for v in operands)
    mode = (
        "as eager mode launches it: variants do not depend on sizes that change from call to call"
        if eager
        else ("as a captured step launches it: variants depend on every size")
    )
    limits = (
        f"at most {target.invocations} invocations a workgroup, {nbytes(target.storage)} of workgroup memory"
        f"{', which software does without' if target.software else ''}, {target.bindings} buffers a kernel"
    )
    lines = [
        *wrapped("", f"{asked.op} {shown} -> {out.dtype}{list(out.shape)}, {mode}"),
        *wrapped("", f"on {title}: {limits}"),
    ]
    for choice in choices:
        lines += wrapped("choice: ", choice)
    if not site.plan.dispatches:
        lines += ["", "nothing is launched: the result has no elements, or is a view"]
    for n, (dispatch, (template, key, views)) in enumerate(zip(site.plan.dispatches, keys, strict=True), start=1):
        kernel = dispatch.kernel
        constants = constants_of(kernel.code)
        spelled, workgroup = workgroup_of(kernel.code)
        groups = dispatch.grid[0] * dispatch.grid[1] * dispatch.grid[2]
        rows = {
            "variant": " ".join(f"{k}={v}" for k, v in key_of(key).items()),
            "workgroups": f"{groups:,} ({' x '.join(f'{g:,}' for g in dispatch.grid)}) of {workgroup:,} invocations"
            + (f" ({spelled})" if not spelled.isdigit() and spelled != "WORKGROUP" else ""),
            "constants": " ".join(f"{k}={v}" for k, v in constants.items()),
            "sizes": " ".join(f"{k}={v}" for k, v in sizes(kernel.code).items()),
            "buffers": ", ".join(buffers_of(kernel.code, views)),
        }
        lines += [
            "",
            f"{n}. {kernel.name}: {_place(kernel.source)}, planned in {template.__module__.replace('.', '/')}.py",
        ]
        lines += wrapped("   ", opening(kernel.code))
        for name, text in rows.items():
            lines += wrapped(f"   {name:<11} ", text) if text else []
        if wgsl:
            lines += ["", kernel.code.rstrip()]
    return lines


def wrapped(start: str, text: str) -> list[str]:
    """Return a line as several of at most WIDTH letters, the later ones indented like the first."""
    rest = " " * len(start)
    return textwrap.wrap(text, WIDTH, initial_indent=start, subsequent_indent=rest, break_on_hyphens=False)


def key_of(key: Any) -> dict[str, object]:
    """Return what distinguishes a kernel from others of its template (a named tuple), without what it does not have."""
    return {k: v for k, v in key._asdict().items() if v is not None and v is not False and v != ()}


def constants_of(code: str) -> dict[str, str]:
    """Return the constants of a kernel's header."""
    header = code.partition("\n// --- header: ")[2]
    return {name: value.removesuffix("u") for name, value in _CONSTANT.findall(header)}


def workgroup_of(code: str) -> tuple[str, int]:
    """Return a kernel's workgroup size as it is written, and its invocations."""
    match = _WORKGROUP.search(code)
    assert match, "every body has an entry point"
    known = {name: _number(value, {}) for name, value in _CONSTANT.findall(code) if re.fullmatch(r"\d+u?", value)}
    total = 1
    for part in match[1].split(","):
        total *= _number(part, known)
    return match[1], total


def _number(text: str, known: Mapping[str, int]) -> int:
    """Return the value of a WGSL product of names and numbers."""

    def value(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int(n)):
                return n
            case ast.Name(id=name):
                return known[name]
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return value(left) * value(right)
            case _:
                raise ConfigError(f"explain: expected a product of names and numbers as workgroup size, got {text!r}")

    return value(ast.parse(re.sub(r"(\d)u\b", r"\1", text.strip()), mode="eval").body)


def buffers_of(code: str, views: Sequence[Any]) -> list[str]:
    """Return each buffer's name, element type, bytes and use."""
    found = [(access, name, element) for access, name, element in _BINDING.findall(code) if access]
    return [
        f"{name} {element} {nbytes(view.buffer.nbytes)} {'written' if access == 'read_write' else 'read'}"
        for (access, name, element), view in zip(found, views, strict=True)
    ]


def opening(text: str) -> str:
    """Return the sentence that a body opens with."""
    return text.removeprefix("enable f16; ").partition("\n// needs:")[0].replace("\n//", "").removeprefix("// ")


COMMAND = Command(
    name="explain",
    help="show which kernels run for an op of given sizes",
    description="Plan an op as it would run, and show each launch: its file, variant, workgroups, constants and buffers. "
    "Nothing is launched, and no GPU is needed with --adapter gpu or --adapter software.",
    arguments=arguments,
    run=run,
)


def _place(source: str) -> str:
    """Return where a kernel's body stands, or what writes it."""
    return f"shaders/{source}" if source.endswith(".wgsl") else f"written by {source}"
