"""Turns what wgpu raises into the errors of wgpu_nn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import wgpu

from wgpu_nn.errors import DeviceError, DeviceLostError, OutOfMemoryError


@contextmanager
def device_errors(what: str) -> Iterator[None]:
    """Turn wgpu's errors into ours; ``what`` names the operation."""
    try:
        yield
    except wgpu.GPUOutOfMemoryError as error:
        raise OutOfMemoryError(f"{what}: the device is out of memory; free tensors or use a smaller batch") from error
    except (wgpu.GPUError, RuntimeError) as error:
        if isinstance(error, DeviceError):
            raise
        text = str(error)
        if "is lost" in text or "DeviceLost" in text:
            raise DeviceLostError(
                f"{what}: the device was lost (driver reset, or destroyed); open a new one, reload the last checkpoint"
            ) from error
        if "memory" in text.lower() and "not enough" in text.lower():
            raise OutOfMemoryError(
                f"{what}: the device is out of memory; free tensors or use a smaller batch"
            ) from error
        raise DeviceError(f"{what}: {text}") from error
