"""How much a fuzz test draws: the hypothesis profiles ci and nightly, and each test's share of them.

`--hypothesis-profile nightly`, or HYPOTHESIS_PROFILE=nightly in the environment, draws anew each time and much; ci, the
default, draws the same few each time. FUZZ_SCALE multiplies what the nightly profile draws.
"""

from __future__ import annotations

import os
import sys

from hypothesis import HealthCheck, settings

settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile("nightly", deadline=None, derandomize=False, print_blob=True)

QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def load() -> None:
    """Choose the profile that the environment names; pytest's own option comes after it and wins."""
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def nightly() -> bool:
    """Whether there is time."""
    return settings.get_current_profile_name() == "nightly"


def examples(ci: int, much: int) -> settings:
    """Return the settings of a test that draws ``ci`` examples in CI, and ``much`` of them at night."""
    count = round(much * float(os.environ.get("FUZZ_SCALE", "1"))) if nightly() else ci
    return settings(settings.default, max_examples=max(count, 1), suppress_health_check=QUIET)


def peak_kb() -> int:
    """Return the most memory that the process ever had, where the system tells; else 0."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak
