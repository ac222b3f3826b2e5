"""The work of the benchmarks of ops: kinds, sizes, drawn numbers; NumPy alone, as peers' processes load it too."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from wgpu_nn.bench import exact
from wgpu_nn.bench.exact import BEST, Arrays, Exact, Places, Sizes, conv_out, conv_sizes

HALF_ULP = 2.0**-24  # of a number around 1 in f32: the error of one rounding


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of work as a function of its sizes.

    ``terms`` is the number of terms that an element of the result adds up. Errors are divided by the magnitudes that
    ``exact`` returns beside the values: 8 sqrt(terms) half units in the last place are allowed, and ``slack`` more.
    """

    draw: Callable[[Sizes, np.random.Generator], Arrays]
    out: Callable[[Sizes], Sizes]
    exact: Callable[[Sizes, Arrays, Places], Exact]
    terms: Callable[[Sizes], int]
    flops: Callable[[Sizes], float]
    title: Callable[[Sizes], str]
    slack: float = 2.0
    moved: Callable[[Sizes], float] | None = None  # bytes, if not inputs and result once each
    chain: bool = False  # whether the first size counts launches of which each needs the one before
    host: bool = False  # whether the time is the host's: transfers, which are waited for one by one
    reads: bool = False  # whether it waits for a number of its own, as no captured function can; ours is eager then


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of work that all engines do."""

    kind: str
    sizes: Sizes

    @property
    def key(self) -> str:
        return f"{self.kind} {'x'.join(map(str, self.sizes))}"

    @property
    def row(self) -> Kind:
        return KINDS[self.kind]

    @property
    def title(self) -> str:
        return f"{self.kind} {self.row.title(self.sizes)}"

    @property
    def flops(self) -> float:
        return self.row.flops(self.sizes)

    @property
    def moved(self) -> float:
        """Bytes that must pass through memory at the least: each input and the result, once."""
        if self.row.moved is not None:
            return self.row.moved(self.sizes)
        inputs = sum(math.prod(s) for s in self.shapes())
        return 4.0 * (inputs + math.prod(self.row.out(self.sizes)))

    @property
    def tolerance(self) -> float:
        """Errors allowed, relative to magnitudes; those of a sum cancel, and grow with the root of its terms."""
        return (8 * math.sqrt(self.row.terms(self.sizes)) + self.row.slack) * HALF_ULP

    def shapes(self) -> list[Sizes]:
        """Return the shapes of the inputs."""
        return [a.shape for a in self.row.draw(self.sizes, _Shapes())]  # pyright: ignore[reportArgumentType]

    def draw(self) -> Arrays:
        """Return the inputs, the same each time and everywhere."""
        return self.row.draw(self.sizes, np.random.default_rng(zlib.crc32(self.key.encode())))

    def places(self) -> Places:
        """Return which elements of the result are compared: the corners, and up to a thousand drawn ones."""
        shape = self.row.out(self.sizes)
        if not shape:
            return ()
        total = math.prod(shape)
        count = int(min(max(2**26 / self.row.terms(self.sizes), 64), 1024))
        drawn = np.random.default_rng(len(shape)).integers(0, total, count)
        return tuple(np.unravel_index(np.concatenate([[0, total - 1], drawn]), shape))

    def sample(self, result: np.ndarray) -> list[float]:
        """Return the elements of a result that are compared."""
        if result.shape != self.row.out(self.sizes):
            return []
        return np.asarray(result, np.float64)[self.places()].ravel().tolist()

    def reference(self, arrays: Arrays) -> tuple[list[float], list[float]]:
        """Return what ``sample`` must give, and the magnitudes that errors are divided by."""
        values, scale = self.row.exact(self.sizes, arrays, self.places())
        return np.ravel(values).tolist(), np.maximum(np.ravel(scale), 1e-30).tolist()


class _Shapes:
    """Stands in for a generator where only shapes are asked for: its arrays take no memory."""

    def standard_normal(self, shape: Sizes, dtype: type = np.float32) -> np.ndarray:
        return np.broadcast_to(np.float32(0), shape)

    random = standard_normal

    def permutation(self, n: int) -> np.ndarray:
        return np.broadcast_to(np.float32(0), (n,))


def _normal(*shapes: Callable[[Sizes], Sizes]) -> Callable[[Sizes, np.random.Generator], Arrays]:
    return lambda sizes, r: [r.standard_normal(shape(sizes), dtype=np.float32) for shape in shapes]


def _positive(shape: Callable[[Sizes], Sizes]) -> Callable[[Sizes, np.random.Generator], Arrays]:
    """Sums of positive numbers are large: a missing part shows."""
    return lambda sizes, r: [r.random(shape(sizes), dtype=np.float32)]


def _same(sizes: Sizes) -> Sizes:
    return sizes


def _by(sizes: Sizes) -> str:
    return str(list(sizes))


def _distinct(sizes: Sizes, r: np.random.Generator) -> Arrays:
    """All different, so that there is one order of them, stable or not."""
    return [np.asarray(r.permutation(sizes[0]), np.float32)]


def _half(sizes: Sizes, r: np.random.Generator) -> Arrays:
    """Half of them zeros, rounded down, anywhere."""
    return [np.maximum(_distinct(sizes, r)[0] - (sizes[0] // 2 - 1), 0)]


def _best(sizes: Sizes) -> Sizes:
    return (min(BEST, sizes[0]),)


def _conv_flops(sizes: Sizes) -> float:
    _, c, _, _, _, k, _, groups = conv_sizes(sizes)
    return 2.0 * math.prod(conv_out(sizes)) * (c // groups) * k * k


def _transposed_flops(sizes: Sizes) -> float:
    _, _, _, _, o, k, _, groups = conv_sizes(sizes)
    return 2.0 * math.prod(sizes[:4]) * (o // groups) * k * k


def _conv_title(sizes: Sizes) -> str:
    n, c, h, w, o, k, p, groups = conv_sizes(sizes)
    return f"{[n, c, h, w]} {c}->{o} {k}x{k}" + (f" pad {p}" if p else "") + (f" groups {groups}" if groups > 1 else "")


def _conv_x(s: Sizes) -> Sizes:
    return s[:4]


def _conv_w(s: Sizes) -> Sizes:
    return (s[4], s[1] // conv_sizes(s)[7], s[5], s[5])


def _transposed_w(s: Sizes) -> Sizes:
    return (s[1], s[4] // conv_sizes(s)[7], s[5], s[5])


def _conv_terms(channels: int) -> Callable[[Sizes], int]:
    return lambda s: s[channels] // conv_sizes(s)[7] * s[5] ** 2


EXP = 512  # half units in the last place that an exponential may be off: Vulkan allows 3 + 2 |x| units, in f32


def _row(f: Callable[[np.ndarray], np.ndarray], flops: float) -> Kind:
    return Kind(_normal(_same), _same, exact.by_rows(f), lambda s: s[1], lambda s: flops * math.prod(s), _by, slack=EXP)


_CONV = {"title": _conv_title, "flops": _conv_flops}

# A new op is benchmarked by a row here, and one in the table of each engine that has it: ops_ours.FUNCTIONS and those of
# the peers.
KINDS: Mapping[str, Kind] = {
    "matmul": Kind(
        draw=_normal(lambda s: (*s[:-2], s[-2]), lambda s: (*s[:-3], *s[-2:])),
        out=lambda s: (*s[:-2], s[-1]),
        exact=exact.matmul,
        terms=lambda s: s[-2],
        flops=lambda s: 2.0 * math.prod(s),
        title=lambda s: f"{list((*s[:-2], s[-2]))} @ {list((*s[:-3], *s[-2:]))}",
    ),
    "conv2d": Kind(_normal(_conv_x, _conv_w), conv_out, exact.conv, _conv_terms(1), **_CONV),
    "conv2d_input_grad": Kind(_normal(conv_out, _conv_w), _conv_x, exact.conv_input, _conv_terms(4), **_CONV),
    "conv2d_weight_grad": Kind(
        _normal(_conv_x, conv_out), _conv_w, exact.conv_weight, lambda s: s[0] * math.prod(conv_out(s)[2:]), **_CONV
    ),
    "conv_transpose2d": Kind(
        _normal(_conv_x, _transposed_w),
        exact.transposed_out,
        exact.conv_transpose,
        _conv_terms(1),
        _transposed_flops,
        lambda s: f"{_conv_title(s)} stride {exact.STRIDE}",
    ),
    "scale": Kind(_normal(_same), _same, exact.mapped(lambda x: x * 2 + 1), lambda s: 2, lambda s: 2.0 * s[0], _by),
    "add": Kind(_normal(_same, _same), _same, exact.mapped(np.add), lambda s: 2, lambda s: 1.0 * s[0], _by),
    "sum all": Kind(_positive(_same), lambda s: (), exact.summed((0, 1)), math.prod, math.prod, _by),
    "sum rows": Kind(_positive(_same), lambda s: s[:1], exact.summed((1,)), lambda s: s[1], math.prod, _by),
    "sum columns": Kind(_positive(_same), lambda s: s[1:], exact.summed((0,)), lambda s: s[0], math.prod, _by),
    "softmax": Kind(_normal(_same), _same, exact.softmax, lambda s: s[1], lambda s: 4.0 * math.prod(s), _by, slack=EXP),
    "log_softmax": _row(exact.log_softmax, 4.0),
    "layer_norm": _row(exact.layer_norm, 7.0),
    "rms_norm": _row(exact.rms_norm, 3.0),
    "softmax, forward and backward": Kind(
        _normal(_same, _same),
        _same,
        exact.softmax_grad,
        lambda s: s[1],
        lambda s: 8.0 * math.prod(s),
        _by,
        slack=2 * EXP,
    ),
    "attention": Kind(
        _normal(_same, _same, _same),
        _same,
        exact.attention,
        lambda s: s[2],
        lambda s: 4.0 * math.prod(s) * s[2],
        _by,
        slack=4 * EXP,  # scores have errors of their own, which exponentials turn into relative ones
    ),
    "attention, forward and backward": Kind(
        _normal(_same, _same, _same, _same),
        _same,
        exact.attention_grad,
        lambda s: s[2],
        lambda s: 14.0 * math.prod(s) * s[2],  # seven products, of which one is the scores anew
        _by,
        slack=4 * EXP,
    ),
    "sort": Kind(_distinct, _same, exact.ordered(np.sort), lambda s: 1, lambda s: 0.0, _by),
    "argsort": Kind(_distinct, _same, exact.ordered(np.argsort), lambda s: 1, lambda s: 0.0, _by),
    "topk": Kind(
        _distinct,
        _best,
        exact.ordered(lambda x: np.sort(x)[::-1][:BEST]),
        lambda s: 1,
        lambda s: 0.0,
        lambda s: f"{_by(s)} k={_best(s)[0]}",
    ),
    "cumsum": Kind(_positive(_same), _same, exact.cumsum, lambda s: s[0], lambda s: 1.0 * s[0], _by),
    "nonzero": Kind(
        _half,
        lambda s: (s[0] - s[0] // 2, 1),
        exact.ordered(lambda x: np.argwhere(x)),
        lambda s: 1,
        lambda s: 0.0,
        lambda s: f"{_by(s)} half zeros, eager: it reads a count",
        reads=True,
    ),
    "add one": Kind(
        _positive(lambda s: s[1:]),
        lambda s: s[1:],
        exact.chain,
        lambda s: s[0],
        lambda s: 1.0 * math.prod(s),
        lambda s: f"{s[0]} times, each to the last result, {list(s[1:])}",
        moved=lambda s: 8.0 * math.prod(s),
        chain=True,
    ),
    **dict.fromkeys(
        ("upload", "download"),
        Kind(
            _normal(_same),
            _same,
            exact.mapped(np.positive),
            lambda s: 1,
            lambda s: 0.0,
            _by,
            moved=lambda s: 4.0 * s[0],
            host=True,
        ),
    ),
}
