"""NumPy's engines of the benchmarks of ops, in f32; it has no convolution, and no device to copy to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from wgpu_nn.bench.engine import Engine, Label
from wgpu_nn.bench.exact import BEST, EPSILON, Arrays
from wgpu_nn.bench.ops_engine import Held, Job, OpsEngine
from wgpu_nn.bench.work import Item


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _softmax_grad(g: np.ndarray, x: np.ndarray) -> np.ndarray:
    y = _softmax(x)
    return y * (g - (g * y).sum(1, keepdims=True))


def _log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def _layer_norm(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(1, keepdims=True) + np.float32(EPSILON))


def _attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _softmax(q @ k.swapaxes(-1, -2) * np.float32(1 / math.sqrt(q.shape[-1]))) @ v


def _attention_grad(g: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    scale = np.float32(1 / math.sqrt(q.shape[-1]))
    weights = _softmax(q @ k.swapaxes(-1, -2) * scale)
    delta = (g * (weights @ v)).sum(-1, keepdims=True)
    change = weights * (g @ v.swapaxes(-1, -2) - delta) * scale
    return change @ k + change.swapaxes(-1, -2) @ q + weights.swapaxes(-1, -2) @ g


def _topk(x: np.ndarray) -> np.ndarray:
    k = min(BEST, len(x))
    return np.sort(np.partition(x, len(x) - k)[len(x) - k :])[::-1]


def _chain(item: Item, x: np.ndarray) -> np.ndarray:
    for _ in range(item.sizes[0]):
        x = x + 1.0
    return x


FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "matmul": lambda item, a, b: a @ b,
    "scale": lambda item, x: x * 2.0 + 1.0,
    "add": lambda item, x, y: x + y,
    "sum all": lambda item, x: x.sum(),
    "sum rows": lambda item, x: x.sum(1),
    "sum columns": lambda item, x: x.sum(0),
    "softmax": lambda item, x: _softmax(x),
    "log_softmax": lambda item, x: _log_softmax(x),
    "layer_norm": lambda item, x: _layer_norm(x),
    "rms_norm": lambda item, x: x / np.sqrt((x * x).mean(1, keepdims=True) + np.float32(EPSILON)),
    "softmax, forward and backward": lambda item, g, x: _softmax_grad(g, x),
    "attention": lambda item, *qkv: _attention(*qkv),
    "attention, forward and backward": lambda item, *given: _attention_grad(*given),
    "sort": lambda item, x: np.sort(x),
    "argsort": lambda item, x: np.argsort(x),
    "topk": lambda item, x: _topk(x),
    "cumsum": lambda item, x: np.cumsum(x),
    "nonzero": lambda item, x: np.argwhere(x),
    "add one": _chain,
}


def prepare(item: Item, arrays: Arrays) -> Job:
    step = lambda: FUNCTIONS[item.kind](item, *arrays)
    return Job(step, lambda: None, lambda: np.asarray(step()))


def engines(work: Sequence[Item]) -> tuple[list[Engine], str]:
    """Return an engine for each item that NumPy can do, and its version."""
    held = Held()
    found: list[Engine] = [
        OpsEngine(Label("numpy", "numpy", item.key), item, prepare, held) for item in work if item.kind in FUNCTIONS
    ]
    return found, f"numpy {np.__version__}"
