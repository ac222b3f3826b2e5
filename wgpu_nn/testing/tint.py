"""The second compiler: Tint, through the optional package dawn-python. Each finds what the other lets pass."""

from __future__ import annotations

import functools
import os
import re
import sys
from typing import Any

from wgpu_nn.errors import DeviceError, ShaderError, missing_extra

# Dawn would try OpenGL as well, which complains on machines without a display.
_API = {"darwin": "Metal", "win32": "DirectX12"}.get(sys.platform, "Vulkan")
_PLACE = re.compile(r":(\d+):(\d+) error: (.+)")


@functools.cache
def _device() -> Any:
    try:
        from pydawn import utils, webgpu  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise missing_extra("shader check with Tint", "dawn-python", "dawn") from None
    if "XDG_RUNTIME_DIR" not in os.environ:
        os.environ.setdefault("NODEVICE_SELECT", "1")  # see gpu/adapter.py
    before = os.environ.get("BACKEND_TYPE")
    os.environ["BACKEND_TYPE"] = before or _API
    try:
        adapter = utils.request_adapter_sync(webgpu.WGPUPowerPreference_HighPerformance)
        known = {"WGPUFeatureName_ShaderF16": webgpu.WGPUFeatureName_ShaderF16}
        known["WGPUFeatureName_Subgroups"] = webgpu.WGPUFeatureName_Subgroups
        found = [value for name, value in known.items() if name in utils.supported_features(adapter)]
        return utils.request_device_sync(adapter, found)
    except RuntimeError as error:
        raise DeviceError(f"shader check with Tint: Dawn opens no adapter: {error}") from None
    finally:
        if before is None:
            del os.environ["BACKEND_TYPE"]


def open_device() -> None:
    """Open Dawn's device; MissingExtraError says what to install, DeviceError why there is none."""
    _device()


def available() -> bool:
    """Whether the package is installed and opens a device."""
    try:
        _device()
    except (ImportError, DeviceError):
        return False
    return True


def compile_with_tint(source: str, code: str) -> None:
    """Compile a text with Tint; ShaderError has file, line and caret."""
    device = _device()
    from pydawn import utils  # pyright: ignore[reportMissingImports]

    try:
        utils.create_shader_module(device, code)
    except RuntimeError as error:
        message = str(error).partition("Shader compilation failed: ")[2] or str(error)
        place = _PLACE.search(message)
        if place is None:
            raise ShaderError(f"shader {source}: Tint does not compile it: {message.strip()}") from None
        line, column = int(place[1]), int(place[2])
        text = next(iter(code.splitlines()[line - 1 : line]), "")  # what is wrong may be the end
        raise ShaderError(
            f"shader {source}:{line}:{column}: {place[3]} (Tint)\n  {text}\n  {' ' * (column - 1)}^"
        ) from None
