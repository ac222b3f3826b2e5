"""Our engines of the benchmarks of ops: captured, which is what we are compared by, and eager where that matters."""

from __future__ import annotations

import functools
import operator
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np

from wgpu_nn.bench.engine import Facts, Label
from wgpu_nn.bench.exact import BEST, EPSILON, STRIDE, conv_sizes, transposed_out
from wgpu_nn.bench.facts import facts_of
from wgpu_nn.bench.timing import Round, time_round
from wgpu_nn.bench.work import Item
from wgpu_nn.nn import scaled_dot_product_attention
from wgpu_nn.tensor import Device, Tensor, tensor
from wgpu_nn.train import Captured, capture

Function = Callable[..., Tensor]


def _window(item: Item, stride: int = 1) -> dict[str, object]:
    pad, groups = conv_sizes(item.sizes)[6:]
    return {"stride": (stride, stride), "padding": ((pad, pad), (pad, pad)), "dilation": (1, 1), "groups": groups}


def _input_grad(item: Item, g: Tensor, w: Tensor) -> Tensor:
    return g.run("conv2d_input_grad", g, w, shape=item.sizes[:4], **_window(item))


def _weight_grad(item: Item, x: Tensor, g: Tensor) -> Tensor:
    _, c, _, _, o, k, _, groups = conv_sizes(item.sizes)
    return g.run("conv2d_weight_grad", x, g, shape=(o, c // groups, k, k), **_window(item))


def _conv_transpose(item: Item, x: Tensor, w: Tensor) -> Tensor:
    return x.run("conv2d_input_grad", x, w, shape=transposed_out(item.sizes), **_window(item, STRIDE))


def _there_and_back(f: Function, g: Tensor, *xs: Tensor) -> Tensor:
    """Return the sum of the gradients of all ``xs``, of one shape."""
    given = [x.to(x.device.autodiff()).require_grad() for x in xs]
    found = f(*given).backward(g)
    return functools.reduce(operator.add, (found[x] for x in given))


def _chain(item: Item, x: Tensor) -> Tensor:
    for _ in range(item.sizes[0]):
        x = x + 1.0
    return x


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "matmul": lambda item, a, b: a @ b,
    "conv2d": lambda item, x, w: x.run("conv2d", x, w, **_window(item)),
    "conv2d_input_grad": _input_grad,
    "conv2d_weight_grad": _weight_grad,
    "conv_transpose2d": _conv_transpose,
    "scale": lambda item, x: x * 2.0 + 1.0,
    "add": lambda item, x, y: x + y,
    "sum all": lambda item, x: x.sum(),
    "sum rows": lambda item, x: x.sum(1),
    "sum columns": lambda item, x: x.sum(0),
    "softmax": lambda item, x: x.softmax(1),
    "log_softmax": lambda item, x: x.log_softmax(1),
    "layer_norm": lambda item, x: x.layer_norm(epsilon=EPSILON),
    "rms_norm": lambda item, x: x.rms_norm(epsilon=EPSILON),
    "softmax, forward and backward": lambda item, g, x: _there_and_back(lambda x: x.softmax(1), g, x),
    "attention": lambda item, q, k, v: scaled_dot_product_attention(q, k, v),
    "attention, forward and backward": lambda item, g, *qkv: _there_and_back(scaled_dot_product_attention, g, *qkv),
    "sort": lambda item, x: x.sort()[0],
    "argsort": lambda item, x: x.argsort(),
    "topk": lambda item, x: x.topk(min(BEST, x.size))[0],
    "cumsum": lambda item, x: x.cumsum(0),
    "nonzero": lambda item, x: x.nonzero(),
    "add one": _chain,
}


class Ours:
    """An item as one captured function, timed by launches repeated within one submit; a chain, by calls."""

    def __init__(self, label: Label, device: Device, item: Item, eager: bool = False) -> None:
        self.label, self._device, self._item, self._eager = label, device, item, eager
        self._made: tuple[Callable[[], Tensor], Captured[..., Tensor] | None] | None = None

    @property
    def _work(self) -> tuple[Callable[[], Tensor], Captured[..., Tensor] | None]:
        if self._made is None:
            item, function = self._item, FUNCTIONS[self._item.kind]
            given = [tensor(a, self._device) for a in item.draw()]
            if self._eager:
                self._made = (lambda: function(item, *given)), None
            else:
                # Links of a chain stay launches of their own.
                captured = capture(fuse=not item.row.chain)(lambda *xs: function(item, *xs))
                self._made = (lambda: captured(*given)), captured
        return self._made

    def release(self) -> None:
        """Give the memory back."""
        self._made = None

    def outcome(self) -> list[float]:
        return self._item.sample(self._work[0]().numpy())

    def facts(self) -> Facts:
        work, captured = self._work
        return facts_of(self._device, work, captured)

    def round(self, steps: int) -> Round:
        work, captured = self._work
        if captured is None or self._item.row.chain:
            return time_round(work, self._device.sync, steps)
        calls: list[float] = []
        for _ in range(3):
            self._device.sync()
            start = time.perf_counter()
            work()
            calls.append(time.perf_counter() - start)
        self._device.sync()
        start = time.perf_counter()
        captured.steps[-1].step.repeat(steps)
        self._device.sync()
        wall = time.perf_counter() - start
        return Round(steps, statistics.median(calls) * 1e6, wall / steps * 1e6)


class Transfer:
    """An array on its way to the device, or back; each is waited for."""

    def __init__(self, label: Label, device: Device, item: Item) -> None:
        self.label, self._device, self._item = label, device, item
        self._array = item.draw()[0]
        self._there: list[Tensor] = []  # one at most

    def release(self) -> None:
        """Give the memory back."""
        self._there.clear()

    def _upload(self) -> None:
        self._there[:] = [tensor(self._array, self._device)]
        self._device.sync()

    def _work(self) -> None:
        if self._item.kind == "upload":
            self._upload()
        else:
            self._download()

    def _download(self) -> np.ndarray:
        if not self._there:
            self._upload()
        return self._there[0].numpy()

    def outcome(self) -> list[float]:
        self._work()
        return self._item.sample(self._download())

    def facts(self) -> Facts:
        return facts_of(self._device, self._work, None)

    def round(self, steps: int) -> Round:
        return time_round(self._work, lambda: None, steps)


def engines(device: Device, item: Item, eager: bool) -> Sequence[Ours | Transfer]:
    """Return our rows for one item."""
    if item.row.host:
        return [Transfer(Label("ours", "wgpu_nn", item.key), device, item)]
    last = Ours(Label("eager", "eager", item.key), device, item, eager=True)
    if item.row.reads:
        return [last]
    rows = [Ours(Label("captured", "captured", item.key), device, item)]
    return [*rows, last] if eager else rows
