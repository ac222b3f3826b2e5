"""PyTorch's engines of the benchmarks of ops: on CUDA where it is, else on the CPU; f32, TF32 off."""

# pyright: reportMissingImports=false, reportPrivateImportUsage=false
# No extra of ours brings torch.
from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wgpu_nn.bench.engine import Engine, Label
from wgpu_nn.bench.exact import BEST, EPSILON, STRIDE, Arrays, conv_sizes
from wgpu_nn.bench.ops_engine import Held, Job, OpsEngine
from wgpu_nn.bench.work import Item


def _backward(item: Item, g: Tensor, x: Tensor, w: Tensor, wanted: int) -> Tensor:
    (pad, groups), mask = conv_sizes(item.sizes)[6:], [n == wanted for n in range(3)]
    window = [1, 1], [pad, pad], [1, 1], False, [0, 0], groups
    return torch.ops.aten.convolution_backward(g, x, w, None, *window, mask)[wanted]


def _conv(f: Callable[..., Tensor], stride: int) -> Callable[[Item, Tensor, Tensor], Tensor]:
    def found(item: Item, x: Tensor, w: Tensor) -> Tensor:
        pad, groups = conv_sizes(item.sizes)[6:]
        return f(x, w, stride=stride, padding=pad, groups=groups)

    return found


def _input_grad(item: Item, g: Tensor, w: Tensor) -> Tensor:
    return _backward(item, g, torch.empty(item.sizes[:4], device=g.device), w, 0)


def _weight_grad(item: Item, x: Tensor, g: Tensor) -> Tensor:
    _, c, _, _, o, k, _, groups = conv_sizes(item.sizes)
    return _backward(item, g, x, torch.empty((o, c // groups, k, k), device=g.device), 1)


def _there_and_back(f: Callable[..., Tensor], g: Tensor, *xs: Tensor) -> Tensor:
    given = [x.detach().requires_grad_() for x in xs]
    with torch.enable_grad():
        found = torch.autograd.grad(f(*given), given, g)
    return functools.reduce(torch.add, found)


def _chain(item: Item, x: Tensor) -> Tensor:
    for _ in range(item.sizes[0]):
        x = x + 1.0
    return x


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "matmul": lambda item, a, b: a @ b,
    "conv2d": _conv(F.conv2d, 1),
    "conv2d_input_grad": _input_grad,
    "conv2d_weight_grad": _weight_grad,
    "conv_transpose2d": _conv(F.conv_transpose2d, STRIDE),
    "scale": lambda item, x: x * 2.0 + 1.0,
    "add": lambda item, x, y: x + y,
    "sum all": lambda item, x: x.sum(),
    "sum rows": lambda item, x: x.sum(1),
    "sum columns": lambda item, x: x.sum(0),
    "softmax": lambda item, x: torch.softmax(x, 1),
    "log_softmax": lambda item, x: torch.log_softmax(x, 1),
    "layer_norm": lambda item, x: F.layer_norm(x, x.shape[1:], eps=EPSILON),
    "rms_norm": lambda item, x: F.rms_norm(x, x.shape[1:], eps=EPSILON),
    "softmax, forward and backward": lambda item, g, x: _there_and_back(lambda x: torch.softmax(x, 1), g, x),
    "attention": lambda item, q, k, v: F.scaled_dot_product_attention(q, k, v),
    "attention, forward and backward": lambda item, g, *qkv: _there_and_back(F.scaled_dot_product_attention, g, *qkv),
    "sort": lambda item, x: torch.sort(x)[0],
    "argsort": lambda item, x: torch.argsort(x),
    "topk": lambda item, x: torch.topk(x, min(BEST, len(x)))[0],
    "cumsum": lambda item, x: torch.cumsum(x, 0),
    "nonzero": lambda item, x: torch.nonzero(x),
    "add one": _chain,
    "upload": lambda item, x: x.to("cuda"),
    "download": lambda item, x: x.cpu(),
}


def prepare(device: str, item: Item, arrays: Arrays) -> Job:
    where = "cpu" if item.kind == "upload" else device
    given = [torch.from_numpy(a).to(where) for a in arrays]
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    step = lambda: FUNCTIONS[item.kind](item, *given)
    return Job(step, wait, lambda: step().cpu().numpy())


def engines(work: Sequence[Item]) -> tuple[list[Engine], str]:
    """Return an engine for each item, and what they run on; a CPU has nothing to upload to."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.set_grad_enabled(False)
    cuda = torch.cuda.is_available()
    device, name = (
        ("cuda", torch.cuda.get_device_name()) if cuda else ("cpu", f"CPU, {torch.get_num_threads()} threads")
    )
    held = Held()
    title = "torch CUDA" if cuda else "torch CPU"
    found: list[Engine] = [
        OpsEngine(Label(f"torch-{device}", title, item.key), item, functools.partial(prepare, device), held)
        for item in work
        if item.kind in FUNCTIONS and (cuda or not item.row.host)
    ]
    return found, f"torch {torch.__version__}, {name}"
