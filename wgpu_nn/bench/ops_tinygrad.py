"""tinygrad's engines of the benchmarks of ops: its WEBGPU backend (Dawn, through dawn-python), with the JIT."""

# pyright: reportMissingImports=false, reportPrivateImportUsage=false
# No extra of ours brings tinygrad.
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from wgpu_nn.bench.engine import Engine, Label
from wgpu_nn.bench.exact import EPSILON, Arrays, conv_sizes
from wgpu_nn.bench.ops_engine import Held, Job, OpsEngine
from wgpu_nn.bench.step_tinygrad import about, choose_webgpu
from wgpu_nn.bench.work import Item


def _conv(item: Item, x: Any, w: Any) -> Any:
    pad, groups = conv_sizes(item.sizes)[6:]
    return x.conv2d(w, padding=pad, groups=groups)


def _input_grad(item: Item, g: Any, w: Any) -> Any:
    from tinygrad import Tensor

    x = Tensor.zeros(*item.sizes[:4])
    return _conv(item, x, w).gradient(x, gradient=g)[0]


def _weight_grad(item: Item, x: Any, g: Any) -> Any:
    from tinygrad import Tensor

    _, c, _, _, o, k, _, groups = conv_sizes(item.sizes)
    w = Tensor.zeros(o, c // groups, k, k)
    return _conv(item, x, w).gradient(w, gradient=g)[0]


def _chain(item: Item, x: Any) -> Any:
    for _ in range(item.sizes[0]):
        x = (x + 1.0).contiguous()  # a launch each
    return x


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "matmul": lambda item, a, b: a @ b,
    "conv2d": _conv,
    "conv2d_input_grad": _input_grad,
    "conv2d_weight_grad": _weight_grad,
    "scale": lambda item, x: x * 2.0 + 1.0,
    "add": lambda item, x, y: x + y,
    "sum all": lambda item, x: x.sum(),
    "sum rows": lambda item, x: x.sum(1),
    "sum columns": lambda item, x: x.sum(0),
    "softmax": lambda item, x: x.softmax(1),
    "log_softmax": lambda item, x: x.log_softmax(1),
    "layer_norm": lambda item, x: x.layernorm(eps=EPSILON),
    "attention": lambda item, q, k, v: q.scaled_dot_product_attention(k, v),
    "add one": _chain,
}


def prepare(item: Item, arrays: Arrays) -> Job:
    from tinygrad import Device, Tensor, TinyJit

    given = [Tensor(a).realize() for a in arrays]
    function = TinyJit(lambda *xs: FUNCTIONS[item.kind](item, *xs).realize())
    step = lambda: function(*given)
    for _ in range(3):  # the third call is the first that replays
        step()
    return Job(step, lambda: Device[Device.DEFAULT].synchronize(), lambda: step().numpy())


def engines(work: Sequence[Item]) -> tuple[list[Engine], str]:
    """Return an engine for each item that tinygrad can do, and what they run on."""
    choose_webgpu()
    held = Held()
    found: list[Engine] = [
        OpsEngine(Label("tinygrad", "tinygrad WEBGPU", item.key), item, prepare, held)
        for item in work
        if item.kind in FUNCTIONS
    ]
    return found, about()
