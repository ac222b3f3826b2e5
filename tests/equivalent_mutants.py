"""The faults of the WGSL bodies that change nothing that a kernel computes, each with why; plants none of them."""

from __future__ import annotations

_HELD = "HELD is 1, 2, 4 or 8, and vectors that are not held are outside() or 0, which changes no result"
_HELD_LINES = tuple(f"if (HELD {bound}u) {{" for bound in ("> 0", ">= 1", "> 1", ">= 2", "> 3", ">= 4", "> 5"))
_BANKS = "any distance keeps the elements apart, within their memory; 32 is the number of its banks"
_SHARED = "all invocations of a row have the same: another one writes it, or several do"
_FIRST = "the first element is looked at twice for the maximum"
_AT_ZERO = "differs for 0 alone, which the condition beside it, or the line above, leaves out"

# By file: why, and the lines with the fault in them.
EQUIVALENT: dict[str, dict[str, tuple[str, ...]]] = {
    "attention.wgsl": {
        "what it multiplies is 0 there": ("let share = select(1.0 / total[r], 1.0, none);",),
    },
    "attention_block.wgsl": {
        _SHARED: (
            "if (m == 0u || left == 0u) {",
            "if (m == 1u && left == 0u) {",
            "if (m != 0u && left == 0u) {",
        ),
    },
    "attention_tile.wgsl": {
        _SHARED: (
            "if (m == 0u || left == 0u) {",
            "if (m == 1u && left == 0u) {",
            "if (m != 0u && left == 0u) {",
        ),
    },
    "conv2d_filter_grad.wgsl": {
        "the second four are summed as well, and not stored": (
            "const WIDE = KERNEL_W >= 4u;",
            "const WIDE = KERNEL_W > 3u;",
        ),
        "an element more is loaded, for a sum that is not stored": (
            "if (SLIDES || KERNEL_W >= n + 1u) { v.y = pixel(line, x + (n + 1u) * DILATION_W); }",
            "if (SLIDES || KERNEL_W >= n + 2u) { v.z = pixel(line, x + (n + 2u) * DILATION_W); }",
            "if (SLIDES || KERNEL_W >= n + 3u) { v.w = pixel(line, x + (n + 3u) * DILATION_W); }",
            "if (SLIDES || KERNEL_W > n + 0u) { v.y = pixel(line, x + (n + 1u) * DILATION_W); }",
            "if (SLIDES || KERNEL_W > n + 1u) { v.z = pixel(line, x + (n + 2u) * DILATION_W); }",
            "if (SLIDES || KERNEL_W > n + 2u) { v.w = pixel(line, x + (n + 3u) * DILATION_W); }",
        ),
    },
    "conv2d_strip.wgsl": {
        "the second step loads what it could have kept": ("if (SLIDES && k > 1u) {",),
    },
    "cross_entropy.wgsl": {_FIRST: ("for (var k = 0u; k < classes(); k++) {",)},
    "cross_entropy_grad.wgsl": {_FIRST: ("for (var k = 0u; k < classes(); k++) {",)},
    "softmax.wgsl": {_FIRST: ("for (var q = 0u; q < quads; q++) {",)},
    "softmax_stream.wgsl": {
        "it is relative to -inf, and so counts nothing": ("var total = 1.0;",),
        "the loop below takes what this one leaves": (
            "for (; q - 3u * WORKGROUP < quads; q += 4u * WORKGROUP) {",
            "for (; q + 4u * WORKGROUP < quads; q += 4u * WORKGROUP) {",
        ),
    },
    "lib/elementary.wgsl": {
        "0 has been left out above": ("return select(select(t, -t, x <= 0.0), x, is_nan(x));",),
        "both are a half of 1 for 0": ("let y = select(1.0 / (1.0 + e), e / (1.0 + e), x <= 0.0);",),
        "a number at the edge is as near from above as from below": ("let above = (word & 0x7fffffu) >= 0x3504f3u;",),
    },
    "max_pool2d.wgsl": {
        "the first element of a window takes its place": ("var best = 1.0;", "var place = 1u;"),
    },
    "lib/float.wgsl": {
        _AT_ZERO: (
            "return select(q, q - 1, x - q * y != 0 && ((x <= 0) != (y < 0)));",
            "return select(q, q - 1, x - q * y != 0 && ((x < 1) != (y < 0)));",
            "return select(q, q - 1, x - q * y != 0 && ((x < 0) != (y <= 0)));",
            "return select(q, q - 1, x - q * y != 0 && ((x < 0) != (y < 1)));",
            "return select(r, r + y, r != 0 && ((r <= 0) != (y < 0)));",
            "return select(r, r + y, r != 0 && ((r < 1) != (y < 0)));",
            "return select(r, r + y, r != 0 && ((r < 0) != (y <= 0)));",
            "return select(r, r + y, r != 0 && ((r < 0) != (y < 1)));",
            "return select(r, r + y, r != 0.0 && ((r <= 0.0) != (y < 0.0)));",
            "return select(r, r + y, r != 0.0 && ((r < 0.0) != (y <= 0.0)));",
            "if (is_inf(y) && !is_inf(x) && !is_nan(x)) { return select(0.0, -1.0, x != 0.0 && (x <= 0.0) != (y < 0.0)); }",
        ),
        "y is infinite": (
            "if (is_inf(y) && !is_inf(x) && !is_nan(x)) { return select(0.0, -1.0, x != 0.0 && (x < 0.0) != (y <= 0.0)); }",
            "if (is_inf(y) && !is_inf(x) && !is_nan(x)) { return select(0.0, -1.0, x != 0.0 && (x < 0.0) != (y < 1.0)); }",
        ),
    },
    "lib/fold.wgsl": {
        "the loop below takes what this one leaves": (
            "for (; at + 4u * step < tail; at += 4u * step) {",
            "for (; r + 4u * lanes < last; r += 4u * lanes) {",
        ),
    },
    "lib/held.wgsl": {
        _HELD: _HELD_LINES,
        _FIRST: ("for (var k = 0u; k < width; k++) {",),
    },
    "matmul_tile.wgsl": {
        _SHARED: ("if (SUMS && m + y == 1u) {",),
        "more teams write, each into its own part of memory, which nobody reads any more": (
            "if (team >= half || team < 2u * half) {",
            "if (team >= half && team <= 2u * half) {",
            "if (team >= half && team < 3u * half) {",
        ),
    },
    "norm_rows_grad.wgsl": {_HELD: _HELD_LINES},
    "places_tile.wgsl": {_BANKS: ("return j + j / 31u;", "return j + j / 33u;")},
    "radix_count_tile.wgsl": {
        "any number of counters of a value adds up to the same": (
            "const SPREAD = 7u; // counters of a value: neighbours seldom wait for each other's atomics",
            "const SPREAD = 9u; // counters of a value: neighbours seldom wait for each other's atomics",
        ),
    },
    "radix_move_tile.wgsl": {_BANKS: ("return j + j / 31u;", "return j + j / 33u;")},
    "scan_tile.wgsl": {
        _BANKS: ("return j + j / 31u;", "return j + j / 33u;"),
        "they are equal for the first slice alone, before which there is nothing": (
            "if (first_carry(slice) <= slice) {",
        ),
    },
    "sort_tile.wgsl": {
        "two elements of one key and one place are what fills a tile up: it may change places": (
            "let after = keys[a] > keys[b] || (keys[a] == keys[b] && places[a] >= places[b]);",
        ),
        "runs of one element take no step": ("for (var size = 1u; size <= runs(); size *= 2u) {",),
    },
    "tallies_tile.wgsl": {_SHARED: ("if (local == 1u) {", "if (local != 0u) {")},
}


def declared(file: str, shown: str) -> bool:
    """Whether a fault is known to change nothing, by its file and by its line with the fault in it."""
    return any(shown in lines for lines in EQUIVALENT.get(file, {}).values())
