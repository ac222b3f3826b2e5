"""The work of the benchmarks of ops: sizes, drawn numbers, exact samples; NumPy alone, as peers' processes load it too."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Sizes = tuple[int, ...]
Arrays = list[np.ndarray]
Places = tuple[np.ndarray, ...]  # one array of indices per axis of the result
Exact = tuple[np.ndarray, np.ndarray]  # values in double precision, and the magnitudes that their errors scale with

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


def _normal(*shapes: Callable[[Sizes], Sizes]) -> Callable[[Sizes, np.random.Generator], Arrays]:
    return lambda sizes, r: [r.standard_normal(shape(sizes), dtype=np.float32) for shape in shapes]


def _positive(shape: Callable[[Sizes], Sizes]) -> Callable[[Sizes, np.random.Generator], Arrays]:
    """Sums of positive numbers are large: a missing part shows."""
    return lambda sizes, r: [r.random(shape(sizes), dtype=np.float32)]


def _same(sizes: Sizes) -> Sizes:
    return sizes


def _by(sizes: Sizes) -> str:
    return str(list(sizes))


# --- products ----------------------------------------------------------------------------------------------------------
def _matmul(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    a, b = (x.astype(np.float64) for x in (arrays[0][at[:-1]], np.swapaxes(arrays[1], -1, -2)[(*at[:-2], at[-1])]))
    return (a * b).sum(-1), (np.abs(a) * np.abs(b)).sum(-1)


def _conv_out(sizes: Sizes) -> Sizes:
    n, _, h, w, o, k, p = sizes
    return (n, o, h + 2 * p - k + 1, w + 2 * p - k + 1)


def _windows(x: np.ndarray, k: int, pad: int) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    return sliding_window_view(padded, (k, k), axis=(2, 3))  # pyright: ignore[reportCallIssue, reportArgumentType]


def _products(a: np.ndarray, b: np.ndarray) -> Exact:
    a, b = a.astype(np.float64), b.astype(np.float64)
    axes = tuple(range(1, a.ndim))
    return (a * b).sum(axes), (np.abs(a) * np.abs(b)).sum(axes)


def _conv(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    k, p = sizes[-2:]
    n, o, y, x = at
    return _products(_windows(arrays[0], k, p)[n, :, y, x], arrays[1][o])


def _conv_input(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    k, p = sizes[-2:]
    n, c, y, x = at
    return _products(_windows(arrays[0], k, k - 1 - p)[n, :, y, x], arrays[1][:, c, ::-1, ::-1].swapaxes(0, 1))


def _conv_weight(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    p = sizes[-1]
    x, g = np.pad(arrays[0], ((0, 0), (0, 0), (p, p), (p, p))), arrays[1]
    h, w = g.shape[2:]
    found = [_products(x[None, :, c, i : i + h, j : j + w], g[None, :, o]) for o, c, i, j in zip(*at)]
    return np.concatenate([v for v, _ in found]), np.concatenate([m for _, m in found])


def _conv_flops(sizes: Sizes) -> float:
    _, c, _, _, _, k, _ = sizes
    return 2.0 * math.prod(_conv_out(sizes)) * c * k * k


def _conv_title(sizes: Sizes) -> str:
    n, c, h, w, o, k, p = sizes
    return f"{[n, c, h, w]} {c}->{o} {k}x{k}" + (f" pad {p}" if p else "")


def _conv_x(s: Sizes) -> Sizes:
    return s[:4]


def _conv_w(s: Sizes) -> Sizes:
    return (s[4], s[1], s[5], s[5])


# --- maps, sums and rows -----------------------------------------------------------------------------------------------
def _mapped(f: Callable[..., np.ndarray]) -> Callable[[Sizes, Arrays, Places], Exact]:
    def exact(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
        given = [a[at].astype(np.float64) for a in arrays]
        return f(*given), 1.0 + f(*map(np.abs, given))

    return exact


def _sum(axes: tuple[int, ...]) -> Callable[[Sizes, Arrays, Places], Exact]:
    def exact(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
        total = arrays[0].sum(axes, dtype=np.float64)
        return total[at], np.abs(total[at])

    return exact


def _softmax(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    x = arrays[0][at[0]].astype(np.float64)
    e = np.exp(x - x.max(1, keepdims=True))
    found = e[np.arange(len(e)), at[1]] / e.sum(1)
    return found, found


def _layer_norm(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    x = arrays[0][at[0]].astype(np.float64)
    found = (x[np.arange(len(x)), at[1]] - x.mean(1)) / np.sqrt(x.var(1) + EPSILON)
    return found, 1.0 + np.abs(found)


def _attention(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    q, k, v = arrays
    values: list[float] = []
    scale: list[float] = []
    for b, h, i, d in zip(*at):
        scores = k[b, h].astype(np.float64) @ q[b, h, i] / math.sqrt(sizes[-1])
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        values.append(float(weights @ v[b, h, :, d]))
        scale.append(float(weights @ np.abs(v[b, h, :, d])))
    return np.array(values), np.array(scale)


def _chain(sizes: Sizes, arrays: Arrays, at: Places) -> Exact:
    found = arrays[0][at].astype(np.float64) + sizes[0]
    return found, found


EPSILON = 1e-5  # of layer_norm
EXP = 512  # half units in the last place that an exponential may be off: Vulkan allows 3 + 2 |x| units, in f32

_CONV = {"title": _conv_title, "flops": _conv_flops}

# A new op is benchmarked by a row here, and one in the table of each engine that has it: ops_ours.FUNCTIONS and those of
# the peers. That is where rows for sort, topk, cumsum and nonzero belong, over 4 Mi elements, when tensors have them.
KINDS: Mapping[str, Kind] = {
    "matmul": Kind(
        draw=_normal(lambda s: (*s[:-2], s[-2]), lambda s: (*s[:-3], *s[-2:])),
        out=lambda s: (*s[:-2], s[-1]),
        exact=_matmul,
        terms=lambda s: s[-2],
        flops=lambda s: 2.0 * math.prod(s),
        title=lambda s: f"{list((*s[:-2], s[-2]))} @ {list((*s[:-3], *s[-2:]))}",
    ),
    "conv2d": Kind(_normal(_conv_x, _conv_w), _conv_out, _conv, lambda s: s[1] * s[5] ** 2, **_CONV),
    "conv2d_input_grad": Kind(_normal(_conv_out, _conv_w), _conv_x, _conv_input, lambda s: s[4] * s[5] ** 2, **_CONV),
    "conv2d_weight_grad": Kind(
        _normal(_conv_x, _conv_out), _conv_w, _conv_weight, lambda s: s[0] * math.prod(_conv_out(s)[2:]), **_CONV
    ),
    "scale": Kind(_normal(_same), _same, _mapped(lambda x: x * 2 + 1), lambda s: 2, lambda s: 2.0 * s[0], _by),
    "add": Kind(_normal(_same, _same), _same, _mapped(np.add), lambda s: 2, lambda s: 1.0 * s[0], _by),
    "sum all": Kind(_positive(_same), lambda s: (), _sum((0, 1)), math.prod, math.prod, _by),
    "sum rows": Kind(_positive(_same), lambda s: s[:1], _sum((1,)), lambda s: s[1], math.prod, _by),
    "sum columns": Kind(_positive(_same), lambda s: s[1:], _sum((0,)), lambda s: s[0], math.prod, _by),
    "softmax": Kind(_normal(_same), _same, _softmax, lambda s: s[1], lambda s: 4.0 * math.prod(s), _by, slack=EXP),
    "layer_norm": Kind(
        _normal(_same), _same, _layer_norm, lambda s: s[1], lambda s: 7.0 * math.prod(s), _by, slack=EXP
    ),
    "attention": Kind(
        _normal(_same, _same, _same),
        _same,
        _attention,
        lambda s: s[2],
        lambda s: 4.0 * math.prod(s) * s[2],
        _by,
        slack=4 * EXP,  # scores have errors of their own, which exponentials turn into relative ones
    ),
    "add one": Kind(
        _positive(lambda s: s[1:]),
        lambda s: s[1:],
        _chain,
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
            _mapped(np.positive),
            lambda s: 1,
            lambda s: 0.0,
            _by,
            moved=lambda s: 4.0 * s[0],
            host=True,
        ),
    ),
}
