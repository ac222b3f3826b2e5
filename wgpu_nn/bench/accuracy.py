"""``wgpu-nn bench accuracy``: how far elementary functions are from their values in double precision, over all of f32."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wgpu_nn.bench import report
from wgpu_nn.bench.compare import positive
from wgpu_nn.tensor import Device, tensor

SAMPLES = 256
# WGSL bounds the errors of divisions for divisors up to this (section 15.7.4).
DIVISIBLE = 2.0**126
LEAST, MOST = 2.0**-126, float(np.finfo(np.float32).max)  # GPUs may take what is less than the least for 0
HEADS = (("", "function"), ("", "bound"), ("this", "adapter"), ("", "where"), ("", "NumPy"), ("", "where"))


@dataclass(frozen=True, slots=True)
class Function:
    """An op, its value in double precision, and how many units in the last place it may be off on any adapter.

    WGSL grants 2.5 units to divisions, and 4.5 to square roots: bounds allow for these where functions are made of them.
    """

    op: str
    exact: Callable[..., np.ndarray]
    bound: float
    more: str = ""  # what arguments the bound holds for, if not for all


@dataclass(frozen=True, slots=True)
class Finding:
    """The largest error of a function, in units in the last place, and the arguments that have it."""

    ulp: float
    at: tuple[float, ...]


_erf = np.vectorize(math.erf, otypes=[np.float64])
FUNCTIONS: tuple[Function, ...] = (
    Function("exp", np.exp, 3),
    Function("expm1", np.expm1, 4),
    Function("log", np.log, 3),
    Function("log1p", np.log1p, 8),
    Function("sqrt", np.sqrt, 5),
    Function("rsqrt", lambda x: 1 / np.sqrt(x), 8),
    Function("recip", lambda x: 1 / x, 3),
    Function("sin", np.sin, 4),
    Function("cos", np.cos, 4),
    Function("tan", np.tan, 8),
    Function("asin", np.arcsin, 12),
    Function("acos", np.arccos, 12),
    Function("atan", np.arctan, 6),
    Function("sinh", np.sinh, 10),
    Function("cosh", np.cosh, 10),
    Function("tanh", np.tanh, 6),
    Function("sigmoid", lambda x: 1 / (1 + np.exp(-x)), 8),
    Function("erf", _erf, 8),
    Function("div", np.divide, 3),
    Function("pow", np.power, 130),
    Function("pow", np.power, 4, "|y| <= 3"),
    Function("atan2", np.arctan2, 8),
)


def samples(count: int, seed: int = 0) -> np.ndarray:
    """Return ``count`` numbers of every exponent and sign of f32, its ends among them, and points that are known as hard."""
    rng = np.random.default_rng(seed)
    mantissas = np.concatenate([[0, 1, 2**22, 2**23 - 1], rng.integers(0, 2**23, max(count - 4, 0))]).astype(np.uint32)
    words = (np.arange(1, 255, dtype=np.uint32)[:, None] << 23 | mantissas).reshape(-1)
    quarters = (np.concatenate([np.arange(1, 4000), 2.0 ** np.arange(12, 60)]) * (np.pi / 2)).astype(np.float32)
    near = np.float32(1) + rng.integers(-4096, 4096, 4 * count).astype(np.float32) * np.float32(2**-23)
    usual = rng.uniform(0, 100, 64 * count).astype(np.float32)
    found = [words.view(np.float32), quarters, np.nextafter(quarters, np.float32(0)), near, usual]
    # The floats nearest to a multiple of pi / 2, and the largest (Muller et al., Handbook of Floating-Point Arithmetic, 11).
    found.append(np.array([16367173.0 * 2.0**72, 13981.0 * np.pi, 88.72283, 103.97208], np.float32))
    together = np.concatenate(found)
    return np.concatenate([together, -together])


def arguments_of(f: Function, count: int, seed: int = 0) -> list[np.ndarray]:
    """Return arguments for a function of one or of two."""
    x = samples(count, seed)
    if f.op in ("recip", "div", "atan2"):
        x = x[np.abs(x) <= DIVISIBLE]
    if f.op not in ("pow", "div", "atan2"):
        return [x]
    rng = np.random.default_rng(seed + 1)
    y = rng.permutation(x)
    if f.op == "pow":
        powers = rng.uniform(-3, 3, x.size) if f.more else rng.uniform(-40, 40, x.size)
        whole = rng.random(x.size) < 0.3
        y = np.where(whole, np.round(powers), powers).astype(np.float32)
    return [x, y]


def errors(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Return how many units in the last place of f32 ``got`` is off; infinity where it is not even of the kind wanted.

    Beyond f32 infinity is right, and below its least normal number whatever is as small.
    """
    small, beyond = np.abs(want) < LEAST, np.abs(want) > MOST
    unit = np.spacing(np.clip(np.abs(np.nan_to_num(want)), LEAST, 2.0**127).astype(np.float32)).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(got.astype(np.float64) - want) / unit
        off = np.where(small, np.where(np.abs(got) <= 2 * LEAST, 0, off), off)
        # The last number before infinity is as good as that, within what is allowed otherwise.
        ends = np.where(np.isinf(got), np.sign(got) * MOST, got).astype(np.float64)
        off = np.where(beyond & ~np.isinf(want), np.abs(ends - np.sign(want) * MOST) / unit, off)
        off = np.where(np.isinf(got) & ~beyond, np.abs(ends - want) / unit + 1, off)
    right = (np.isnan(got) & np.isnan(want)) | (np.isinf(want) & (got == want))
    wrong = (np.isnan(got) != np.isnan(want)) | (np.isinf(want) & (got != want))
    return np.where(right, 0, np.where(wrong, np.inf, off))


def measure(f: Function, device: Device, count: int = SAMPLES, seed: int = 0) -> Finding:
    """Return the largest error of a function on a device."""
    xs = arguments_of(f, count, seed)
    first = tensor(xs[0], device)
    got = first.run(f.op, *(tensor(x, device) for x in xs)).numpy()
    with np.errstate(all="ignore"):
        off = errors(got, f.exact(*(x.astype(np.float64) for x in xs)))
    worst = int(np.argmax(off))
    return Finding(float(off[worst]), tuple(float(x[worst]) for x in xs))


def run(args: argparse.Namespace) -> int:
    """Measure and report; 1 if a function is further off than its bound, else 0."""
    report.writable(args.json)
    device, cpu = Device(args.device), Device("numpy")
    environment = report.environment(device)
    rows: list[list[str]] = []
    found: list[dict[str, Any]] = []
    failed = False
    for f in FUNCTIONS:
        report.progress(f"bench accuracy: {title(f)}")
        ours, theirs = (measure(f, d, args.samples) for d in (device, cpu))
        failed |= ours.ulp > f.bound
        verdict = f"{ours.ulp:.3g}" if ours.ulp <= f.bound else f"{ours.ulp:.3g} FAILED"
        rows.append([title(f), f"{f.bound:g}", verdict, place(ours), f"{theirs.ulp:.3g}", place(theirs)])
        found.append({"function": title(f), "bound": f.bound, "ours": asdict(ours), "numpy": asdict(theirs)})
    if args.table:
        print("\n".join(report.markdown([" ".join(h).strip() for h in HEADS], rows)))
    else:
        adapter = environment["adapter"]
        head = f"largest errors in units in the last place of f32, against double precision, on {adapter['name']}"
        report.show([head, "", *report.table(HEADS, rows)], bold=1)
    if args.json is not None:
        report.save(args.json, {"environment": environment, "functions": found})
    return int(failed)


def title(f: Function) -> str:
    """Return a function's name, and what its bound holds for."""
    return f"{f.op}, {f.more}" if f.more else f.op


def place(found: Finding) -> str:
    """Return the arguments of a finding."""
    return ", ".join(f"{x:.9g}" for x in found.at)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``wgpu-nn bench accuracy``."""
    parser.add_argument("--device", default="wgpu", help="our device: wgpu, wgpu:<index or name> (the best adapter)")
    parser.add_argument(
        "--samples", type=positive, default=SAMPLES, metavar="N", help=f"numbers of each exponent and sign ({SAMPLES})"
    )
    report.outputs(parser)
