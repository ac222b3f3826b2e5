"""``wgpu-nn info``: which adapters there are, what they offer, which one is used and why, and whether it computes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from wgpu_nn.cli.command import Command
from wgpu_nn.tensor import Device, Tensor, tensor

# Of a hundred limits and features, those that decide what fits and which kernels run.
LIMITS = {
    "max-buffer-size": "largest buffer",
    "max-storage-buffer-binding-size": "largest binding",
    "max-storage-buffers-per-shader-stage": "storage buffers",
    "max-compute-workgroup-storage-size": "workgroup memory",
    "max-compute-invocations-per-workgroup": "workgroup size",
}
BYTES = {"max-buffer-size", "max-storage-buffer-binding-size", "max-compute-workgroup-storage-size"}
FEATURES = {"shader-f16": "f16", "subgroup": "subgroups", "timestamp-query": "timestamps"}

SECONDS = 0.4  # of timing, after the one run that is checked


@dataclass(frozen=True, slots=True)
class Check:
    """What the self-check found: the largest error, whether all errors are as small as they must be, and the speed."""

    n: int
    error: float
    ok: bool
    gflops: float


def run(args: argparse.Namespace) -> int:
    """Print the adapters and check the chosen one; 0 if it computes correctly, else 1."""
    from wgpu_nn.gpu import adapters, choose

    chosen, why = choose(args.adapter)
    for adapter in adapters():
        mark = "*" if adapter is chosen else " "
        print(f"{mark} {adapter.index}: {adapter.name}")
        rows = {
            "kind": adapter.kind,
            "api": adapter.api,
            "driver": adapter.driver or "unknown",
            **limits(adapter.limits),
            "features": ", ".join(features(adapter.features)) or "none of " + ", ".join(FEATURES.values()),
        }
        for name, value in rows.items():
            print(f"     {name:<17} {value}")
    print(f"\nchosen: {chosen.index}, {why}")
    check = self_check(Device(f"wgpu:{chosen.index}"), 512 if chosen.kind == "software" else 1024)
    print(
        f"self-check: matmul {check.n} x {check.n} against NumPy: largest error {check.error:.1e}, "
        f"{check.gflops:,.1f} GFLOP/s: {'ok' if check.ok else 'FAILED'}"
    )
    return 0 if check.ok else 1


def limits(found: Mapping[str, int]) -> dict[str, str]:
    """Return the limits that matter, named and with units."""
    return {
        title: size(found[name]) if name in BYTES else f"{found[name]:,}"
        for name, title in LIMITS.items()
        if name in found
    }


def features(found: frozenset[str]) -> list[str]:
    """Return the names of the features that matter and that are there."""
    return [title for name, title in FEATURES.items() if name in found]


def size(nbytes: int) -> str:
    """Return a number of bytes as people say it: 128 MiB."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    power = 0
    value = float(nbytes)
    while value >= 1024 and power < len(units) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.4g} {units[power]}"


def self_check(device: Device, n: int) -> Check:
    """Multiply two random [n, n] matrices on ``device``, compare with NumPy in double precision, and take the time."""
    generator = np.random.default_rng(0)
    a, b = (generator.uniform(-1.0, 1.0, (n, n)).astype(np.float32) for _ in range(2))
    x, y = tensor(a, device), tensor(b, device)
    error = np.abs(multiply(x, y).numpy() - a.astype(np.float64) @ b.astype(np.float64))
    # Holds for every order of summation (Higham 2002, 3.5); 2^-24 is half a unit in the last place of f32.
    bound = n * 2.0**-24 * (np.abs(a) @ np.abs(b))
    count, start = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - start < SECONDS:
        for _ in range(4):
            multiply(x, y)
        device.sync()
        count += 4
    seconds = (time.perf_counter() - start) / count
    ok = bool((error <= bound).all())  # NaN is not
    return Check(n, float(error.max()), ok, 2 * n**3 / seconds / 1e9)


def multiply(x: Tensor, y: Tensor) -> Tensor:
    """Return what the self-check checks."""
    return x.matmul(y)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``wgpu-nn info``."""
    parser.add_argument("adapter", nargs="?", help="index, or part of a name or kind, of the one to check")


COMMAND = Command(
    name="info",
    help="list the adapters, and check the one that would be used",
    description="List this machine's adapters with what matters of them, say which one is used and why, and let it "
    "multiply two matrices against NumPy.",
    arguments=arguments,
    run=run,
)
