"""Damage to files: the ways in which bytes change on disks, on lines and by hand; knows no format but JSON's tokens."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from hypothesis import strategies as st

# Sizes and offsets that overflow something, or nearly do.
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40)
NUMBERS += ((1 << 53) + 1, (1 << 63) - 1, (1 << 64) - 1)
TOKENS = (
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-1", b"0", b"1.5", b"[]", b"{}", b'"x"', b'""', b'"\\ud800"'),
    *(
        b"99999999",
        b"9" * 12,
        b"9" * 400,
        b"9" * 5000,
        b"-0.0",
        b"9223372036854775808",
        b'{"a": [1]}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ),
)
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|null|true|false|[\[\]{},:]')


def _change(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] = rng.randrange(256)


def _flip(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def _remove(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 2, 4, 8, 100))]


def _repeat(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.choice((1, 4, 32, 500))] * rng.choice((1, 2, 50))


def _insert(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice((b"\0", b"\xff", b"\n", b"\xef\xbb\xbf", b"\x1f\x8b", rng.randbytes(7))) * rng.choice(
        (1, 9)
    )


def _number(data: bytearray, rng: random.Random) -> None:
    width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    at = rng.randrange(len(data))
    data[at : at + width] = (rng.choice(NUMBERS) & ((1 << 8 * width) - 1)).to_bytes(width, order)


def _token(data: bytearray, rng: random.Random) -> None:
    found = list(_TOKEN.finditer(data))
    if found:
        place = rng.choice(found)
        data[place.start() : place.end()] = rng.choice((*TOKENS, rng.choice(found).group()))


def _swap(data: bytearray, rng: random.Random) -> None:
    a, b, n = rng.randrange(len(data)), rng.randrange(len(data)), rng.choice((1, 4, 16))
    data[a : a + n], data[b : b + n] = data[b : b + n], data[a : a + n]


def _replace(data: bytearray, rng: random.Random) -> None:
    data[:] = rng.randbytes(rng.choice((0, 1, 3, 8, 64, 1000)))


KINDS: dict[str, Callable[[bytearray, random.Random], None]] = {
    "change": _change, "flip": _flip, "truncate": _truncate, "remove": _remove, "repeat": _repeat, "insert": _insert,
    "number": _number, "token": _token, "swap": _swap, "replace": _replace,
}  # fmt: skip

Damage = list[tuple[str, int]]
# A few injuries, each a kind and what decides its place.
DAMAGE: st.SearchStrategy[Damage] = st.lists(
    st.tuples(st.sampled_from(sorted(KINDS)), st.integers(0, 1 << 32)), min_size=1, max_size=3
)


def damaged(data: bytes, damage: Damage) -> bytes:
    """Return ``data`` with each injury in turn."""
    out = bytearray(data)
    for kind, seed in damage:
        if out:
            KINDS[kind](out, random.Random(seed))
    return bytes(out)
