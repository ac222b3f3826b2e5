"""How two sequences of tokens align: edit distance and longest common subsequence, a row of NumPy at a time."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def edit_distance(x: Sequence[Hashable], y: Sequence[Hashable]) -> int:
    """Return the fewest insertions, deletions and substitutions that make ``y`` of ``x`` (Levenshtein 1966).

    Time len(x) len(y), memory len(y).
    """
    a, b = _numbered(x, y)
    places = np.arange(len(b) + 1)
    row = places.copy()
    for i, token in enumerate(a, 1):
        best = np.empty_like(row)
        best[0] = i
        best[1:] = np.minimum(row[1:] + 1, row[:-1] + (b != token))
        # An insertion costs one more than the place before: the least of all places before, and as many as lie between.
        row = np.minimum.accumulate(best - places) + places
    return int(row[-1])


def common_length(x: Sequence[Hashable], y: Sequence[Hashable]) -> int:
    """Return the length of the longest common subsequence of two sequences; time len(x) len(y), memory len(y)."""
    a, b = _numbered(x, y)
    row = np.zeros(len(b) + 1, np.int64)
    for token in a:
        row[1:] = np.maximum.accumulate(np.maximum(row[1:], row[:-1] + (b == token)))
    return int(row[-1])


def _numbered(x: Sequence[Hashable], y: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Return both with a number for each different token."""
    numbers: dict[Hashable, int] = {}
    a, b = (np.array([numbers.setdefault(t, len(numbers)) for t in s], np.int64) for s in (x, y))
    return a, b
