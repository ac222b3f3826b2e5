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
from wgpu_nn.bench.ops_engine import Held, Job, OpsEngine
from wgpu_nn.bench.work import EPSILON, Arrays, Item


def _backward(item: Item, g: Tensor, x: Tensor, w: Tensor, wanted: int) -> Tensor:
    pad, mask = item.sizes[-1], [n == wanted for n in range(3)]
    found = torch.ops.aten.convolution_backward(g, x, w, None, [1, 1], [pad, pad], [1, 1], False, [0, 0], 1, mask)
    return found[wanted]


def _input_grad(item: Item, g: Tensor, w: Tensor) -> Tensor:
    return _backward(item, g, torch.empty(item.sizes[:4], device=g.device), w, 0)


def _weight_grad(item: Item, x: Tensor, g: Tensor) -> Tensor:
    _, c, _, _, o, k, _ = item.sizes
    return _backward(item, g, x, torch.empty((o, c, k, k), device=g.device), 1)


def _chain(item: Item, x: Tensor) -> Tensor:
    for _ in range(item.sizes[0]):
        x = x + 1.0
    return x


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "matmul": lambda item, a, b: a @ b,
    "conv2d": lambda item, x, w: F.conv2d(x, w, padding=item.sizes[-1]),
    "conv2d_input_grad": _input_grad,
    "conv2d_weight_grad": _weight_grad,
    "scale": lambda item, x: x * 2.0 + 1.0,
    "add": lambda item, x, y: x + y,
    "sum all": lambda item, x: x.sum(),
    "sum rows": lambda item, x: x.sum(1),
    "sum columns": lambda item, x: x.sum(0),
    "softmax": lambda item, x: torch.softmax(x, 1),
    "layer_norm": lambda item, x: F.layer_norm(x, x.shape[1:], eps=EPSILON),
    "attention": lambda item, q, k, v: F.scaled_dot_product_attention(q, k, v),
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
