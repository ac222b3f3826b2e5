"""The few process-wide switches, each an environment variable and a context manager; knows not who reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from wgpu_nn.errors import ConfigError

_switches: list[Switch] = []
_state: tuple[bool, ...] = ()  # of all switches; what is planned under one may not hold under another


def state() -> tuple[bool, ...]:
    """Return how all switches are set: what was planned under one state may not be right under another."""
    return _state


class Switch:
    """A named on/off setting: ``with switch.set(False): ...`` for a block, ``switch.on = False`` for good."""

    def __init__(self, variable: str, default: bool, meaning: str) -> None:
        self.variable, self.meaning = variable, meaning
        text = os.environ.get(variable, "")
        known = {"": default, "0": False, "off": False, "1": True, "on": True}
        if text.lower() not in known:
            raise ConfigError(f"{variable}: expected 0, 1, on or off, got {text!r}; it decides whether {meaning}")
        _switches.append(self)
        self.on = known[text.lower()]

    @property
    def on(self) -> bool:
        """The setting."""
        return self._on

    @on.setter
    def on(self, on: bool) -> None:
        global _state
        self._on = on
        _state = tuple([s.on for s in _switches])

    def __bool__(self) -> bool:
        return self._on

    @contextmanager
    def set(self, on: bool) -> Iterator[None]:
        """Set the switch for the length of a ``with`` block."""
        before, self.on = self.on, on
        try:
            yield
        finally:
            self.on = before


class Choice:
    """A named setting with a few values: ``with choice.set("on"): ...`` for a block, ``choice.value = "on"`` for good."""

    def __init__(self, variable: str, values: dict[str, str], meaning: str) -> None:
        """Take what each of ``values`` means; the first is the default."""
        self.variable, self.values, self.meaning = variable, values, meaning
        self._value = self.known(os.environ.get(variable, "").lower() or next(iter(values)), variable)

    def known(self, value: str, what: str) -> str:
        """Return a value if it is one of ours; the error names ``what`` it was given to."""
        if value not in self.values:
            known = ", ".join(f"{name} ({meaning})" for name, meaning in self.values.items())
            raise ConfigError(f"{what}: expected {known}, got {value!r}; it decides {self.meaning}")
        return value

    @property
    def value(self) -> str:
        """The setting."""
        return self._value

    @value.setter
    def value(self, value: str) -> None:
        self._value = self.known(value, self.variable)

    @contextmanager
    def set(self, value: str) -> Iterator[None]:
        """Set it for the length of a ``with`` block."""
        before, self.value = self._value, value
        try:
            yield
        finally:
            self._value = before


checked_shaders = Switch("WGPU_NN_CHECKED", False, "our own shaders run with bounds checks and loop limits")
capture = Switch("WGPU_NN_CAPTURE", True, "captured functions are traced and replayed; off, they run as they are")
fusion = Switch(
    "WGPU_NN_FUSION", True, "captured functions are fused; off, they launch op by op and equal eager mode bit for bit"
)
debug = Choice(
    "WGPU_NN_DEBUG",
    {
        "off": "nothing is watched",
        "nan": "the first kernel that makes NaN",
        "inf": "the first kernel that makes NaN or infinity",
        "bounds": "accesses out of bounds",
        "race": "results that depend on the order of workgroups",
        "unwritten": "reads of memory that nothing has written",
    },
    "what devices that are opened from now on watch their kernels for, unless they are told",
)
deterministic = Switch(
    "WGPU_NN_DETERMINISTIC",
    True,
    "sums are added up in the same order each time; off, scatter-adds of Floats, and so gradients of gathers, take atomics",
)
limits = Choice(
    "WGPU_NN_LIMITS",
    {"adapter": "all that the adapter offers", "default": "no better than every WebGPU device has"},
    "the limits that devices are opened with",
)
half_sums = Switch(
    "WGPU_NN_HALF_SUMS",
    False,
    "large products of f16 matrices are summed up in f16 as well, on GPUs: faster, with errors that grow as the inner size",
)
winograd = Switch(
    "WGPU_NN_WINOGRAD", True, "wide 3 x 3 convolutions take fewer multiplications, with about twice the rounding errors"
)
autotune = Choice(
    "WGPU_NN_AUTOTUNE",
    {
        "off": "rules choose",
        "on": "what is not known yet is measured, and remembered",
        "once": "all is measured anew, once a process, and remembered",
    },
    "how captured functions choose among the variants of a kernel",
)
