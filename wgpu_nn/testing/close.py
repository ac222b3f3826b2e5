"""Compares arrays element by element, and says where and by how much they differ."""

from __future__ import annotations

from typing import Any

import numpy as np

MAP = (12, 64)  # most rows and columns of the map of differences


def assert_close(
    actual: Any, expected: Any, *, ulp: float = 0, rtol: float = 0.0, atol: float = 0.0, name: str = "result"
) -> None:
    """Raise AssertionError unless every element is close: within ``ulp`` units in the last place of the type of ``actual``,
    or ``|actual - expected| <= atol + rtol * |expected|``. Without a tolerance, elements must be equal.

    NaN is close to NaN, and an infinity to itself. ``expected`` may have a wider type: that is the more exact comparison.
    """
    a, e = np.asarray(actual), np.asarray(expected)
    if a.shape != e.shape:
        raise AssertionError(f"{name}: expected shape {list(e.shape)}, got {list(a.shape)}")
    wide_a, wide_e = _wide(a), _wide(e)
    with np.errstate(all="ignore"):
        difference = np.abs(wide_a - wide_e)
        close = (a == e) | (np.isnan(wide_a) & np.isnan(wide_e))
        close |= np.isfinite(wide_a) & np.isfinite(wide_e) & (difference <= atol + rtol * np.abs(wide_e))
        units = ulps(a, e) if a.dtype.kind == "f" else difference
        close |= np.isfinite(wide_a) & np.isfinite(wide_e) & (units <= ulp)
    if close.all():
        return
    badness = np.where(close, -1.0, np.where(np.isnan(difference), np.inf, difference))
    worst = np.unravel_index(int(np.argmax(badness)), a.shape)
    index = ", ".join(str(int(i)) for i in worst)
    allowed = [f"{v:g} {what}" for v, what in ((ulp, "ulp"), (rtol, "relative"), (atol, "absolute")) if v] or [
        "equality"
    ]
    raise AssertionError(
        f"{name}: {int((~close).sum()):,} of {a.size:,} elements differ (allowed: {', '.join(allowed)})\n"
        f"  worst at [{index}]: expected {e[worst]!s}, got {a[worst]!s}, "
        f"{difference[worst]:.3g} apart, {float(units[worst]):.3g} ulp\n{where(~close)}"
    )


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64)


def ulps(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return how many units in the last place of the type of ``actual`` two arrays are apart, near ``expected``."""
    info = np.finfo(actual.dtype)
    wide = np.abs(_wide(expected))
    exponent = np.floor(np.log2(np.maximum(wide, float(info.smallest_normal))))
    unit = np.exp2(exponent - info.nmant)
    return np.abs(_wide(actual) - _wide(expected)) / unit


def where(wrong: np.ndarray) -> str:
    """Return a map of an array, last axis to the right: ``#`` for a cell with a wrong element in it, ``.`` for none."""
    plane = wrong.reshape(-1, wrong.shape[-1] if wrong.ndim else 1)
    steps = [max(1, -(-n // most)) for n, most in zip(plane.shape, MAP, strict=True)]
    rows = [
        "".join(
            "#" if plane[r : r + steps[0], c : c + steps[1]].any() else "." for c in range(0, plane.shape[1], steps[1])
        )
        for r in range(0, plane.shape[0], steps[0])
    ]
    scale = "" if steps == [1, 1] else f" (a cell is {steps[0]} x {steps[1]} elements)"
    return f"  where{scale}:\n" + "\n".join(f"    {row}" for row in rows)
