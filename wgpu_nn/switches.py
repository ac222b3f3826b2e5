"""The few process-wide switches, each an environment variable and a context manager; knows not who reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from wgpu_nn.errors import ConfigError


class Switch:
    """A named on/off setting: ``with switch.set(False): ...`` for a block, ``switch.on = False`` for good."""

    def __init__(self, variable: str, default: bool, meaning: str) -> None:
        self.variable, self.meaning = variable, meaning
        text = os.environ.get(variable, "")
        known = {"": default, "0": False, "off": False, "1": True, "on": True}
        if text.lower() not in known:
            raise ConfigError(f"{variable}: expected 0, 1, on or off, got {text!r}; it decides whether {meaning}")
        self.on = known[text.lower()]

    def __bool__(self) -> bool:
        return self.on

    @contextmanager
    def set(self, on: bool) -> Iterator[None]:
        """Set the switch for the length of a ``with`` block."""
        before, self.on = self.on, on
        try:
            yield
        finally:
            self.on = before


checked_shaders = Switch("WGPU_NN_CHECKED", False, "our own shaders run with bounds checks and loop limits")
capture = Switch("WGPU_NN_CAPTURE", True, "captured functions are traced and replayed; off, they run as they are")
fusion = Switch(
    "WGPU_NN_FUSION", True, "captured functions are fused; off, they launch op by op and equal eager mode bit for bit"
)
