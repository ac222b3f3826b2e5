"""Plans 2-d convolution and the gradient of its input: direct, in strips, by patches or runs, or as block products."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from wgpu_nn.gpu import Kernel
from wgpu_nn.kernels.block import Block
from wgpu_nn.kernels.conv3d import as_volume, deep, run_input_grad3d, tap_steps
from wgpu_nn.kernels.conv_few import few, run_strips
from wgpu_nn.kernels.conv_patch import Patch, Windows, choose_patch, run_patches
from wgpu_nn.kernels.conv_phases import run_phases
from wgpu_nn.kernels.conv_runs import choose_runs, run_runs, runs_options
from wgpu_nn.kernels.fused import Chain, Finish, finish_header
from wgpu_nn.kernels.implicit import Convolution, forward_block, forward_blocks, run_forward
from wgpu_nn.kernels.map import dense
from wgpu_nn.kernels.plan import Candidate, Input, Site, Task, View, Words, check_turns, grid
from wgpu_nn.kernels.reduce import run_empty
from wgpu_nn.kernels.source import assemble, bindings, words
from wgpu_nn.kernels.winograd import run_winograd, suits
from wgpu_nn.shape import Shape, size

Pair = tuple[int, int]


class Window(NamedTuple):
    """The constants of a convolution; sizes are not among them, so that a new batch or image size compiles nothing."""

    kernel: Pair
    stride: Pair
    dilation: Pair
    padded: bool
    workgroup: int


def constants(w: Window) -> str:
    """Return the WGSL of a window's constants."""
    pairs = {"KERNEL": w.kernel, "STRIDE": w.stride, "DILATION": w.dilation}
    lines = [
        f"const {name}_{side} = {value}u;"
        for name, pair in pairs.items()
        for side, value in zip("HW", pair, strict=True)
    ]
    return "\n".join([*lines, f"const PADDED = {str(w.padded).lower()};", f"const WORKGROUP = {w.workgroup}u;"])


class ConvKey(NamedTuple):
    """What distinguishes forward kernels. ``flipped``: the weight is read as the input gradient needs it."""

    window: Window
    bias: bool
    flipped: bool
    single: bool  # one pixel an invocation, not eight
    finish: Chain | None


_CONV_WORDS = [
    "pixels",
    "blocks",
    "out_w",
    "out_hw",
    "height",
    "width",
    "pad_top",
    "pad_left",
    "in_channels",
    "out_channels",
    "group_in",
    "group_out",
    "group_blocks",
]
_WEIGHT = """fn weight_row(o: u32) -> u32 { return o * group_in() * KERNEL_H * KERNEL_W; }
fn weight_tap(c: u32, ky: u32, kx: u32) -> u32 { return (c * KERNEL_H + ky) * KERNEL_W + kx; }"""
# The roles of channels are exchanged and the window is turned around.
_FLIPPED = """fn weight_row(o: u32) -> u32 {
    return (o / group_out() * group_in() * group_out() + o % group_out()) * KERNEL_H * KERNEL_W;
}
fn weight_tap(c: u32, ky: u32, kx: u32) -> u32 {
    return ((c * group_out() + 1u) * KERNEL_H - 1u - ky) * KERNEL_W + KERNEL_W - 1u - kx;
}"""
# The roles of channels are exchanged alone.
_EXCHANGED = """fn weight_row(o: u32) -> u32 {
    return (o / group_out() * group_in() * group_out() + o % group_out()) * KERNEL_H * KERNEL_W;
}
fn weight_tap(c: u32, ky: u32, kx: u32) -> u32 { return (c * group_out() * KERNEL_H + ky) * KERNEL_W + kx; }"""


@functools.cache
def conv_kernel(key: ConvKey, values: Words | None) -> Kernel:
    """Return the kernel of a direct convolution."""
    stored = [
        ("source", "r", "f32"),
        ("weight", "r", "f32"),
        *([("bias", "r", "f32")] if key.bias else []),
        ("out", "w", "f32"),
    ]
    more, finish, _ = finish_header(key.finish, "f32")
    stored[-1:-1] = more
    header = "\n".join(
        [
            bindings(tuple(stored), values is None),
            finish,
            constants(key.window),
            words(tuple(_CONV_WORDS), values),
            _FLIPPED if key.flipped else _WEIGHT,
            f"fn initial(o: u32) -> f32 {{ return {'bias[o]' if key.bias else '0.0'}; }}",
        ]
    )
    body = "conv2d_pixel" if key.single else "conv2d"
    return assemble("conv2d", body, header, "r" * (len(stored) - 1) + "w", values is None)


def _dense(site: Site, inputs: Sequence[Input]) -> list[View]:
    """Return the operands that are tensors, each contiguous at the start of its buffer."""
    return [dense(site, x) for x in inputs if isinstance(x, View)]


def run_conv2d(
    site: Site, op: str, inputs: Sequence[Input], attrs: dict[str, Any], out: View, finish: Finish | None = None
) -> None:
    """Plan a convolution with an optional bias; ``finish`` is applied to each result."""
    if out.size == 0:
        return
    x, w, *bias = _dense(site, inputs)
    if x.size == 0 or w.size == 0:
        run_empty(site, out, finish, bias[0].seen((1, *out.shape), (0, 0, 1, 0, 0)) if bias else None)
        return
    _forward(site, x, w, bias, out, attrs, flipped=False, finish=finish)


def _forward(
    site: Site,
    x: View,
    w: View,
    bias: list[View],
    out: View,
    attrs: dict[str, Any],
    *,
    flipped: bool,
    finish: Finish | None,
) -> None:
    ways = _ways(site, x, w, out, attrs, flipped)
    chosen = 0
    if len(ways) > 1:
        taps = x.shape[1] // attrs["groups"] * w.shape[2] * w.shape[3]
        family = f"conv2d{' flipped' if flipped else ''}"
        given = (*x.shape, *out.shape[1:])
        task = Task(family, traits(attrs, w.shape, *bias), given, (x, w, *bias), (out,), taps)
        chosen = site.choose(task, [Candidate(k, functools.partial(_alone, attrs, v)) for k, v in ways.items()])
    list(ways.values())[chosen](site, x, w, bias, out, attrs, finish=finish)


Way = Callable[..., None]  # plans an op in one of the ways that suit it


def traits(attrs: dict[str, Any], weight: Shape, *bias: View | None) -> str:
    """Return what else than sizes the choice for a convolution depends on."""
    window = [f"{k} {attrs[k]}" for k in ("stride", "padding", "dilation", "groups")]
    kernel = "x".join(map(str, weight[2:]))
    return f"kernel {kernel} {' '.join(window)}{' and bias' if any(b is not None for b in bias) else ''}"


def _alone(attrs: dict[str, Any], way: Way, site: Site, views: Sequence[View]) -> None:
    x, w, *bias, out = views
    way(site, x, w, bias, out, attrs, finish=None)


def _ways(site: Site, x: View, w: View, out: View, attrs: dict[str, Any], flipped: bool) -> dict[str, Way]:
    """Return what the rules say, and behind it, for captured steps, what else may be as good; by name."""
    ways: dict[str, Way] = {}
    conv = _convolution(x, w, out, attrs, flipped)
    strips = few(site, x.shape[1] // attrs["groups"], out.shape[1] // attrs["groups"])
    taps = w.shape[2] * w.shape[3]
    pixels, group_out = size(out.shape) // out.shape[1], out.shape[1] // attrs["groups"]
    runs = (
        None
        if strips
        else choose_runs(site, pixels, taps * conv.source.shape[1] // attrs["groups"], taps, group_out, attrs["groups"])
    )
    block = None if strips else forward_block(site, conv)
    output = (out.shape[2], out.shape[3])
    windows = Windows(conv.kernel, attrs["stride"], attrs["dilation"], x.shape[0], output, group_out, attrs["groups"])
    patch = choose_patch(windows, site.tuned) if site.target.software and not strips else None
    # Invocations enough to fill a large GPU come first, then the reuse of weights.
    tiles = size(out.shape) // out.shape[1] * -(-out.shape[1] // attrs["groups"] // 8) * attrs["groups"]
    single = site.tuned and not site.target.software and tiles < 1 << 19
    if suits(site, x, out, w.shape[2:], attrs):
        ways["winograd"] = functools.partial(run_winograd, flipped=flipped)
    if strips:
        ways["strips"] = functools.partial(run_strips, flipped=flipped)
    elif patch is not None:
        rows, columns = patch.size
        ways[f"patches {rows} x {columns} x {patch.outputs}"] = functools.partial(
            _patches, patch=patch, flipped=flipped
        )
    elif runs is not None:
        ways[f"runs {runs[0]} x {runs[1]}"] = functools.partial(_runs, runs=runs, flipped=flipped)
    elif block is not None:
        ways[_name(block)] = functools.partial(_blocks, block=block, flipped=flipped)
    else:
        ways[f"direct {1 if single else 8}"] = functools.partial(_direct, single=single, flipped=flipped)
    if site.tuned:
        for other in forward_blocks(site, conv):
            ways.setdefault(_name(other), functools.partial(_blocks, block=other, flipped=flipped))
        for other in runs_options(site, w.shape, group_out):
            ways.setdefault(f"runs {other[0]} x {other[1]}", functools.partial(_runs, runs=other, flipped=flipped))
        for one in (False, True):
            ways.setdefault(f"direct {1 if one else 8}", functools.partial(_direct, single=one, flipped=flipped))
    return ways


def _name(block: Block) -> str:
    return f"block {'x'.join(map(str, block[:6]))}"


def _convolution(x: View, w: View, out: View, attrs: dict[str, Any], flipped: bool) -> Convolution:
    _, o, oh, ow = out.shape
    (top, _), (left, _) = attrs["padding"]
    window = _window(w, attrs, 1)
    role = "flipped" if flipped else "forward"
    return Convolution(role, constants(window), x, (o, oh, ow), window.kernel, (top, left), attrs["groups"])


def _window(w: View, attrs: dict[str, Any], workgroup: int) -> Window:
    padded = max(max(pair) for pair in attrs["padding"]) > 0
    return Window((w.shape[2], w.shape[3]), attrs["stride"], attrs["dilation"], padded, workgroup)


def _runs(
    site: Site,
    x: View,
    w: View,
    bias: Sequence[View],
    out: View,
    attrs: dict[str, Any],
    *,
    runs: tuple[int, int],
    flipped: bool,
    finish: Finish | None,
) -> None:
    texts = (constants(_window(w, attrs, 1)), _FLIPPED if flipped else _WEIGHT)
    run_runs(site, runs, x, w, bias, out, attrs, texts, finish)


def _patches(
    site: Site,
    x: View,
    w: View,
    bias: Sequence[View],
    out: View,
    attrs: dict[str, Any],
    *,
    patch: Patch,
    flipped: bool,
    finish: Finish | None,
) -> None:
    texts = (constants(_window(w, attrs, 1)), _FLIPPED if flipped else _WEIGHT)
    run_patches(site, patch, x, w, bias, out, attrs, texts, finish)


def _blocks(
    site: Site,
    x: View,
    w: View,
    bias: Sequence[View],
    out: View,
    attrs: dict[str, Any],
    *,
    block: Block,
    flipped: bool,
    finish: Finish | None,
) -> None:
    run_forward(site, _convolution(x, w, out, attrs, flipped), block, w, bias, out, finish)


def _direct(
    site: Site,
    x: View,
    w: View,
    bias: Sequence[View],
    out: View,
    attrs: dict[str, Any],
    *,
    single: bool,
    flipped: bool,
    finish: Finish | None,
) -> None:
    groups, (top, _), (left, _) = attrs["groups"], *attrs["padding"]
    (n, c, height, width), (o, oh, ow) = x.shape, out.shape[1:]
    check_turns(site, "conv2d", c // groups * w.shape[2] * (w.shape[3] + 1))
    pixels, group_out = n * oh * ow, o // groups
    group_blocks = -(-group_out // 8)
    blocks = group_blocks * groups
    workgroup = site.target.workgroup if site.target.software else min(64, site.target.invocations)
    window = _window(w, attrs, workgroup)
    values = (pixels, blocks, ow, oh * ow, height, width, top, left, c, o, c // groups, group_out, group_blocks)
    groups_of_pixels = -(-pixels // (workgroup * (1 if single else 8)))
    key = ConvKey(window, bool(bias), flipped, single, finish.chain if finish else None)
    views = [x, w, *bias, *(finish.views if finish else ()), out]
    site.launch(conv_kernel, key, values, views, grid(groups_of_pixels * blocks))


_INPUT_WORDS = [
    "items",
    "height",
    "width",
    "in_channels",
    "out_h",
    "out_w",
    "out_channels",
    "pad_top",
    "pad_left",
    "group_in",
    "group_out",
]


class InputGradKey(NamedTuple):
    """What distinguishes kernels of the input gradient."""

    window: Window
    finish: Chain | None


@functools.cache
def input_grad_kernel(key: InputGradKey, values: Words | None) -> Kernel:
    """Return the kernel of the input gradient for any stride."""
    window = key.window
    more, finish, _ = finish_header(key.finish, "f32")
    stored = (("source", "r", "f32"), ("weight", "r", "f32"), *more, ("out", "w", "f32"))
    header = "\n".join(
        [
            bindings(stored, values is None),
            finish,
            constants(window),
            tap_steps("HW", window.stride, window.dilation),
            words(tuple(_INPUT_WORDS), values),
        ]
    )
    access = "".join(a for _, a, _ in stored)
    return assemble("conv2d_input_grad", "conv2d_input_grad", header, access, values is None)


def run_input_grad(
    site: Site, op: str, inputs: Sequence[Input], attrs: dict[str, Any], out: View, finish: Finish | None = None
) -> None:
    """Plan the gradient of a convolution's input from that of its output; ``finish`` is applied to each result.

    With stride 1 it is itself a convolution, of the padded gradient with the turned weight.
    """
    if out.size == 0:
        return
    g, w = _dense(site, inputs)
    if g.size == 0 or w.size == 0:
        run_empty(site, out, finish)
        return
    stride, padding, dilation, groups = attrs["stride"], attrs["padding"], attrs["dilation"], attrs["groups"]
    kernel = (w.shape[2], w.shape[3])
    if stride == (1, 1):
        pads: list[Pair] = []
        for d in (0, 1):
            before = dilation[d] * (kernel[d] - 1) - padding[d][0]
            after = out.shape[2 + d] - g.shape[2 + d] + dilation[d] * (kernel[d] - 1) - before
            pads.append((before, after))
        if min(pads[0] + pads[1]) >= 0:
            turned = {**attrs, "padding": (pads[0], pads[1])}
            _forward(site, g, w, [], out, turned, flipped=True, finish=finish)
            return
    windows = Windows(
        kernel, stride, dilation, out.shape[0], (out.shape[2], out.shape[3]), out.shape[1] // groups, groups, True
    )
    patch = choose_patch(windows, site.tuned) if site.target.software else None
    if patch is not None:
        texts = (constants(_window(w, attrs, 1)), _EXCHANGED)
        run_patches(site, patch, g, w, [], out, attrs, texts, finish, turned=True)
        return
    if run_phases(site, g, w, out, attrs, finish):
        return
    if deep(site, out, groups):
        one = {"stride": (1, *stride), "padding": ((0, 0), *padding), "dilation": (1, *dilation), "groups": groups}
        run_input_grad3d(site, op, [as_volume(g), as_volume(w)], one, as_volume(out), finish)
        return
    window = Window(kernel, stride, dilation, True, site.target.workgroup)
    (_, c, height, width), (_, o, oh, ow) = out.shape, g.shape
    values = (out.size, height, width, c, oh, ow, o, padding[0][0], padding[1][0], c // groups, o // groups)
    key = InputGradKey(window, finish.chain if finish else None)
    site.launch(
        input_grad_kernel,
        key,
        values,
        [g, w, *(finish.views if finish else ()), out],
        grid(-(-out.size // window.workgroup)),
    )
