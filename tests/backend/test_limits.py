"""Devices with lower limits than their adapter has, and what happens to tensors beyond these."""

from __future__ import annotations

import pytest

from wgpu_nn import Device, switches, tensor
from wgpu_nn.errors import DeviceError, DeviceLimitError
from wgpu_nn.gpu.limits import PORTABLE

BINDING = "max-storage-buffer-binding-size"


def test_a_device_has_the_limits_that_are_asked_for_and_is_another_than_the_one_without() -> None:
    low = Device(limits={BINDING: 1 << 20})
    assert low.gpu.limits[BINDING] == 1 << 20
    assert low.gpu.limits["max-buffer-size"] == Device().gpu.limits["max-buffer-size"]
    assert low == Device(limits={BINDING: 1 << 20})
    assert low != Device()
    assert (tensor([1.0, 2.0], low) * 2).tolist() == [2.0, 4.0]


def test_a_switch_opens_devices_with_the_limits_that_every_webgpu_device_has() -> None:
    with switches.limits.set("default"):
        portable = Device()
        lower = Device(limits={BINDING: 1 << 20})
    for name, value in PORTABLE.items():
        assert portable.gpu.limits.get(name, value) == value, name
    assert not portable.gpu.features
    assert lower.gpu.limits == portable.gpu.limits | {BINDING: 1 << 20}
    assert Device() == Device() and (switches.limits.value == "default" or Device() != portable)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max-binding": 5}, "expected names of limits, got 'max-binding'"),
        ({BINDING: 1 << 60}, f"expected {BINDING} of 1 to "),
        ({BINDING: 0}, f"expected {BINDING} of 1 to "),
        ({"min-storage-buffer-offset-alignment": 1}, "offset-alignment of .* or more"),
    ],
    ids=str,
)
def test_limits_that_the_adapter_does_not_have_are_refused(limits: dict[str, int], message: str) -> None:
    with pytest.raises(DeviceLimitError, match=message):
        Device(limits=limits)


def test_numpy_has_no_limits_to_lower() -> None:
    with pytest.raises(DeviceError, match="expected limits of a wgpu device"):
        Device("numpy", limits={BINDING: 1 << 20})
