"""Turns what wgpu raises into the errors of wgpu_nn, and takes note of devices that are lost."""

from __future__ import annotations

import logging

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


class device_errors:
    """A context that turns wgpu's errors into ours; ``what`` names the operation.

    Reads and submits enter one each, and a generator would take five times as long.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, wgpu.GPUError | RuntimeError) and not isinstance(error, DeviceError):
            raise _ours(self._what, error) from error


def _ours(what: str, error: wgpu.GPUError | RuntimeError) -> DeviceError:
    """Return what to raise instead of one of wgpu's errors."""
    text, full = str(error), isinstance(error, wgpu.GPUOutOfMemoryError)
    if not full and ("is lost" in text or "DeviceLost" in text):
        return DeviceLostError(
            f"{what}: the device was lost (driver reset, or destroyed); device.reset() opens it anew; load your state again"
        )
    if full or ("memory" in text.lower() and "not enough" in text.lower()):
        return OutOfMemoryError(f"{what}: the device is out of memory; free tensors or use a smaller batch")
    return DeviceError(f"{what}: {text}")
