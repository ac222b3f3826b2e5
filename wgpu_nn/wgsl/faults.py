"""Puts what a watched text reported into words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wgpu_nn.wgsl.bounds import MOST, WORDS, Site

SHOWN = 5


def report(what: str, sites: Sequence[Site], words: np.ndarray) -> str:
    """Return a message that names variable, index and invocation of the accesses that ``words`` reports."""
    count = int(words[0])
    entries = words.reshape(-1, WORDS)[1 : 1 + min(int(words[1]), MOST)]
    # Which invocation comes first is up to the device; the message is not.
    ordered = sorted(tuple(int(w) for w in e[:6]) for e in entries)
    lines: list[str] = []
    for site, index, length, x, y, z in ordered[:SHOWN]:
        s = sites[site]
        signed = index - (1 << 32) if index >= 1 << 31 else index
        lines.append(
            f"  line {s.line}:{s.column}: {s.text}: {s.what} at index {signed}, of {length} elements, "
            f"of {s.space} {s.variable}, by invocation ({x}, {y}, {z})"
        )
    first = sites[ordered[0][0]]
    more = f"\n  and {count - len(lines):,} more" if count > len(lines) else ""
    return (
        f"{what}:{first.line}:{first.column}: expected accesses within bounds, got {count:,} outside; compare the index "
        f"with the length before\n" + "\n".join(lines) + more
    )
