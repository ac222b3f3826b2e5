"""Which limits and features a device is opened with: its adapter's own, or those of every WebGPU device; enforces none."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from wgpu_nn import switches
from wgpu_nn.errors import DeviceLimitError

BINDING = "max-storage-buffer-binding-size"
# What every device has without asking (WebGPU, section 3.6.2), of what compute shaders and buffers meet.
PORTABLE: dict[str, int] = {
    "max-bind-groups": 4,
    "max-bindings-per-bind-group": 1000,
    "max-buffer-size": 1 << 28,
    "max-compute-invocations-per-workgroup": 256,
    "max-compute-workgroup-size-x": 256,
    "max-compute-workgroup-size-y": 256,
    "max-compute-workgroup-size-z": 64,
    "max-compute-workgroup-storage-size": 1 << 14,
    "max-compute-workgroups-per-dimension": 65535,
    "max-dynamic-storage-buffers-per-pipeline-layout": 4,
    "max-dynamic-uniform-buffers-per-pipeline-layout": 8,
    BINDING: 1 << 27,
    "max-storage-buffers-per-shader-stage": 8,
    "max-uniform-buffer-binding-size": 1 << 16,
    "max-uniform-buffers-per-shader-stage": 12,
    "min-storage-buffer-offset-alignment": 256,
    "min-uniform-buffer-offset-alignment": 256,
}


def limits_of(offered: Mapping[str, int], asked: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return the limits to open a device with, by WebGPU's names: ``offered`` ones, as ``asked`` for where that says.

    With ``switches.limits`` at "default" what is not asked for is no better than what every WebGPU device has.
    """
    found = dict(offered)
    if switches.limits.value == "default":
        found |= {name: _worse(name, offered[name], value) for name, value in PORTABLE.items() if name in offered}
    for name, value in (asked or {}).items():
        if name not in offered:
            raise DeviceLimitError(f"device: expected names of limits, got {name!r}; there are {', '.join(offered)}")
        if _worse(name, offered[name], value) != value or value < 1:
            span = f"{offered[name]} or more" if name.startswith("min-") else f"1 to {offered[name]}"
            raise DeviceLimitError(f"device: expected {name} of {span}, which the adapter offers, got {value}")
        found[name] = value
    return found


def features_of(wanted: Iterable[str], offered: Iterable[str]) -> frozenset[str]:
    """Return what of ``wanted`` a device is opened with: nothing with ``switches.limits`` at "default", else all offered."""
    return frozenset() if switches.limits.value == "default" else frozenset(wanted) & frozenset(offered)


def host_memory() -> int | None:
    """Return how many bytes a software adapter may take of this machine: three quarters; None where it does not tell.

    A driver on the CPU promises whatever is asked for, and the system then ends the process that uses it.
    """
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None
    with suppress(OSError, ValueError):  # a container has less
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total // 4 * 3


def bindable(limits: Mapping[str, int]) -> int:
    """Return how many bytes of a buffer a kernel may see at once."""
    return min(limits[BINDING], limits["max-buffer-size"]) & ~15


def beyond_binding(what: str, most: int, nbytes: int) -> DeviceLimitError:
    """Return the error for a kernel that would have to see more of a buffer than the device allows."""
    return DeviceLimitError(
        f"{what}: expected to see at most {most} bytes of a tensor at once ({BINDING} of this device), got {nbytes}, and "
        "it cannot be done in parts; use a smaller batch, split the tensor, or use another adapter"
    )


def _worse(name: str, one: int, other: int) -> int:
    return max(one, other) if name.startswith("min-") else min(one, other)
