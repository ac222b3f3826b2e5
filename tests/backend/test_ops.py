"""Every op on every variant of the kernels: Wgpu against NumPy, and both against double precision."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cases import CASES, Case
from wgpu_nn import Device


def assert_close(case: Case, got: np.ndarray, want: np.ndarray) -> None:
    """Compare by the case's tolerance; NaN equals NaN."""
    assert got.shape == want.shape
    allowed = case.tolerance
    np.testing.assert_allclose(
        got.astype(np.float64), want.astype(np.float64), allowed.relative, allowed.absolute, err_msg=allowed.why
    )


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_wgpu_agrees_with_double_precision_and_numpy(
    case: Case, any_device: Device, cpu: Device, exact: Device
) -> None:
    want = case.run(exact.backend)
    got = case.run(any_device.backend)
    assert_close(case, got, want)
    if case.tolerance.same:
        np.testing.assert_array_equal(got, case.run(cpu.backend), err_msg=case.tolerance.why)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_numpy_in_single_precision_agrees_with_double(case: Case, cpu: Device, exact: Device) -> None:
    got = case.run(cpu.backend)
    assert_close(case, got, case.run(exact.backend))
    assert got.dtype in (np.float32, np.int32, np.bool_)
