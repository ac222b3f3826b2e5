"""Which adapters answer, which one to take and why; leaves opening a device to device.py."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

import wgpu
from wgpu.backends.wgpu_native.extras import set_instance_extras

from wgpu_nn.errors import AdapterError
from wgpu_nn.gpu import process

VARIABLE = "WGPU_NN_ADAPTER"

# Real GPUs first, and of those the one with its own memory; the software adapter only where nothing else answers.
_RANK = {"DiscreteGPU": 0, "IntegratedGPU": 1, "Unknown": 2, "CPU": 3}
_KINDS = {"DiscreteGPU": "discrete", "IntegratedGPU": "integrated", "Unknown": "other", "CPU": "software"}

INSTALL = (
    "install a Vulkan driver for your GPU, or the software one "
    "(Debian, Ubuntu: mesa-vulkan-drivers; Fedora: mesa-vulkan-drivers; Arch: vulkan-swrast); "
    "macOS and Windows bring Metal and DX12 themselves"
)


@dataclass(frozen=True, eq=False)
class Adapter:
    """One adapter of this machine. ``kind`` is discrete, integrated, other or software."""

    index: int
    name: str
    kind: str
    api: str
    driver: str
    raw: wgpu.GPUAdapter

    @property
    def limits(self) -> dict[str, int]:
        """The adapter's limits by WebGPU's names."""
        return dict(self.raw.limits)

    @property
    def features(self) -> frozenset[str]:
        """The adapter's features by wgpu's names."""
        return frozenset(self.raw.features)

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}, {self.api})"


@functools.cache
def adapters() -> tuple[Adapter, ...]:
    """Return the adapters of this machine, best first, numbered from 0."""
    if "XDG_RUNTIME_DIR" not in os.environ:
        # Mesa's device-select layer would print an error for each instance made without a desktop session.
        os.environ.setdefault("NODEVICE_SELECT", "1")
    # OpenGL is left out: it offers the same GPUs as the others do, with fewer features, and its loader complains on
    # machines without a display.
    set_instance_extras(backends=["Vulkan", "Metal", "DX12"])
    raw = [a for a in wgpu.gpu.enumerate_adapters_sync() if a.info["backend_type"] != "OpenGL"]
    raw.sort(key=lambda a: _RANK.get(a.info["adapter_type"], 2))
    return tuple(
        Adapter(
            i,
            a.info["device"],
            _KINDS.get(a.info["adapter_type"], "other"),
            a.info["backend_type"],
            a.info["description"],
            a,
        )
        for i, a in enumerate(raw)
    )


def choose(wanted: str | int | None = None) -> tuple[Adapter, str]:
    """Return an adapter and the reason for it.

    ``wanted`` is an index, part of a name or kind (case does not matter), or None: then the environment variable
    WGPU_NN_ADAPTER decides, and without it the best adapter is taken.
    """
    source = "asked for"
    if wanted is None:
        wanted = os.environ.get(VARIABLE) or None
        source = f"{VARIABLE} asks for"
    process.check()
    found = adapters()
    if not found:
        raise AdapterError(f"adapter: none answers on this machine; {INSTALL}")
    if wanted is None:
        best = found[0]
        why = "the only adapter" if len(found) == 1 else "the best: discrete before integrated before software"
        return best, why
    listing = "; ".join(f"{a.index}: {a}" for a in found)
    text = str(wanted)
    if text.isdigit():
        if int(text) >= len(found):
            raise AdapterError(f"adapter: {source} index {text}, got {len(found)} adapter(s); there are {listing}")
        return found[int(text)], f"{source} index {text}"
    for a in found:
        if text.lower() in a.name.lower() or text.lower() == a.kind:
            return a, f"{source} {text!r}"
    raise AdapterError(f"adapter: {source} {text!r}, which matches none; there are {listing}")


def again(adapter: Adapter) -> Adapter:
    """Return an adapter as a fresh look at the machine finds it; itself if it is not there any more."""
    adapters.cache_clear()
    alike = [a for a in adapters() if (a.name, a.api) == (adapter.name, adapter.api)]
    return next((a for a in alike if a.index == adapter.index), alike[0] if alike else adapter)
