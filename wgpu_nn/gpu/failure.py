"""Turns what wgpu raises into the errors of wgpu_nn, and takes note of devices that are lost."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import wgpu
from wgpu.backends.wgpu_native._api import error_handler

from wgpu_nn.errors import DeviceError, DeviceLostError, OutOfMemoryError

_losses = 0


def losses() -> int:
    """Return how many devices this process has lost so far: whoever sees it grow looks whether the device is its own."""
    return _losses


def _noted(message: str) -> None:
    global _losses
    if message.startswith("The WGPU device was lost"):
        _losses += 1  # whoever uses that device next is told by an error
    else:
        _log_error(message)


# NOTE: wgpu-py does no more with a lost device than to log it, twice, on stderr.
_log_error, error_handler.log_error = error_handler.log_error, _noted
logging.getLogger("wgpu").addFilter(lambda record: record.msg != "DEVICE LOST!")


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
                f"{what}: the device was lost (driver reset, or destroyed); device.reset() opens it anew; load your state again"
            ) from error
        if "memory" in text.lower() and "not enough" in text.lower():
            raise OutOfMemoryError(
                f"{what}: the device is out of memory; free tensors or use a smaller batch"
            ) from error
        raise DeviceError(f"{what}: {text}") from error
