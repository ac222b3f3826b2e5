"""Splits WGSL into tokens with their places, without comments; knows brackets, and nothing of what tokens mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from wgpu_nn.errors import ShaderError

_TOKEN = re.compile(
    r"(?P<space>\s+|//[^\n\v\f\r\x85\u2028\u2029]*)|(?P<block>/\*)"
    r"|(?P<name>[^\W\d]\w*)|(?P<number>(?:0[xX][\da-fA-F.]+(?:[pP][+-]?\d+)?|[\d.]*\d[\d.]*(?:[eE][+-]?\d+)?)[iufh]?)"
    r"|(?P<mark>.)",
    re.DOTALL,
)
_PAIRS = {"(": ")", "[": "]", "{": "}"}


class Token(NamedTuple):
    """A word of the text. ``kind`` is name, number or mark; a mark is one character, so that ``>>`` closes two lists."""

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """Where the text goes on."""
        return self.start + len(self.text)


def tokens(text: str) -> list[Token]:
    """Return the tokens of a text; block comments nest (WGSL, section 3.3)."""
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None and match.lastgroup is not None
        if match.lastgroup == "block":
            at = _behind_comment(text, at)
            continue
        if match.lastgroup != "space":
            found.append(Token(match.lastgroup, match[0], at))
        at = match.end()
    return found


def _behind_comment(text: str, start: int) -> int:
    depth, at = 0, start
    while at < len(text):
        two = text[at : at + 2]
        if two == "/*":
            depth, at = depth + 1, at + 2
        elif two == "*/":
            depth, at = depth - 1, at + 2
            if not depth:
                return at
        else:
            at += 1
    raise ShaderError(f"shader: line {line(text, start)}: a comment that begins with /* has no end")


def line(text: str, at: int) -> int:
    """Return the number of the line, from 1, that a place lies on."""
    return text.count("\n", 0, at) + 1


def closing(found: Sequence[Token], opening: int) -> int:
    """Return which token closes the bracket that token ``opening`` opens, or the last one."""
    depth = 0
    for k in range(opening, len(found)):
        depth += (found[k].text in _PAIRS) - (found[k].text in _PAIRS.values())
        if not depth:
            return k
    return len(found) - 1


def template_end(found: Sequence[Token], opening: int) -> int:
    """Return which token closes the ``<`` of a type at ``opening``; brackets inside are skipped, as they may hold a ``>``."""
    depth, k = 0, opening
    while k < len(found):
        text = found[k].text
        if text in _PAIRS:
            k = closing(found, k)
        depth += (text == "<") - (text == ">")
        if not depth:
            return k
        k += 1
    return len(found) - 1


def split(found: Sequence[Token], first: int, last: int) -> list[tuple[int, int]]:
    """Return the ranges of tokens between commas, of those from ``first`` up to ``last``; nested lists stay whole."""
    out: list[tuple[int, int]] = []
    start = k = first
    while k < last:
        text = found[k].text
        if text in _PAIRS:
            k = closing(found, k)
        elif text == "<" and found[k - 1].kind == "name":
            k = template_end(found, k)
        elif text == ",":
            out.append((start, k))
            start = k + 1
        k += 1
    if start < last:
        out.append((start, last))
    return out
