"""Small faults in a WGSL text: one flipped operator, bound or constant each; knows tokens, and runs nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from wgpu_nn.wgsl.tokens import Token, closing, line, template_end, tokens

FLIPS = {
    "+": "-", "-": "+", "*": "/", "/": "*", "%": "*",
    "+=": "-=", "-=": "+=", "*=": "/=", "/=": "*=", "|=": "&=", "&=": "|=", "^=": "|=",
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==",
    "&&": "||", "||": "&&", "&": "|", "|": "&", "^": "|", "<<": ">>", ">>": "<<", "!": "", "~": "",
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "true": "false", "false": "true", "floor": "ceil", "round": "trunc"}
NAMES |= {"atomicMax": "atomicMin", "atomicAdd": "atomicSub"}
PAIRS = {"+=", "-=", "*=", "/=", "|=", "&=", "^=", "<=", ">=", "==", "!=", "&&", "||", "<<", ">>", "->", "++", "--"}
TYPES = re.compile(r"array|vec[234]|mat[234]x[234]|ptr|atomic|bitcast|var")
BARRIER = re.compile(r"(?:workgroup|storage)Barrier")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A file of the shaders with one fault: ``was`` at ``start`` became ``now``."""

    file: str
    start: int
    was: str
    now: str
    line: int

    def of(self, text: str) -> str:
        """Return the text with the fault in it."""
        return text[: self.start] + self.now + text[self.start + len(self.was) :]

    def shown(self, text: str) -> str:
        """Return the line with the fault in it, without the blanks around."""
        return self.of(text).splitlines()[self.line - 1].strip()


def mutants(file: str, text: str, barriers: bool = False) -> list[Mutant]:
    """Return all faults that this module knows, in order; ``barriers`` are left out as well if that is wished."""
    return [Mutant(file, t.start, t.text, now, line(text, t.start)) for t, now in _faults(text, barriers)]


def _faults(text: str, barriers: bool) -> Iterator[tuple[Token, str]]:
    found = tokens(text)
    ordinary = _skipping_types(found)
    for k, token in enumerate(ordinary):
        before = ordinary[k - 1] if k else None
        behind = ordinary[k + 1].text if k + 1 < len(ordinary) else ""
        if token.kind == "mark":
            binary = before is not None and (before.kind in ("name", "number") or before.text in (")", "]"))
            if before is not None and before.text == "return":
                binary = False
            if token.text == "-" and not binary:
                yield token, ""
            elif token.text in FLIPS and (binary or token.text in ("!", "~")):
                yield token, FLIPS[token.text]
        elif token.kind == "number":
            yield from ((token, now) for now in _numbers(token.text))
        elif token.text in NAMES and (behind == "(" or token.text in ("true", "false")):
            yield token, NAMES[token.text]
        elif barriers and BARRIER.fullmatch(token.text):
            yield Token("name", f"{token.text}()", token.start), ""


def _numbers(text: str) -> Iterator[str]:
    """Yield other numbers: the neighbours of a whole one; for others, 0 and 1 each other, and the double."""
    whole = re.fullmatch(r"(0x[\da-fA-F]+|\d+)([iu]?)", text)
    if whole is None:
        number = 0.0 if text.startswith("0x") else float(text.rstrip("fh"))
        yield "1.0" if number == 0 else f"(2.0 * {text})"
        if number == 1:
            yield "0.0"
        return
    number, suffix = int(whole[1], 0), whole[2]
    if number:
        yield f"{number - 1}{suffix}"
    if number < 0xFFFFFFFF:
        yield f"{number + 1}{suffix}"


def _skipping_types(found: list[Token]) -> list[Token]:
    """Return the tokens outside of attributes and of types' parameters, with operators of two marks put together."""
    out: list[Token] = []
    k = 0
    while k < len(found):
        token = found[k]
        behind = found[k + 1] if k + 1 < len(found) else Token("mark", "", -1)
        if token.text == "@":
            k = closing(found, k + 2) + 1 if found[k + 2].text == "(" else k + 2
        elif TYPES.fullmatch(token.text) and behind.text == "<":
            out.append(token)
            k = template_end(found, k + 1) + 1
        elif token.kind == "mark" and token.text + behind.text in PAIRS and behind.start == token.end:
            third = found[k + 2] if k + 2 < len(found) else behind
            out.append(Token("mark", token.text + behind.text, token.start))
            k += 3 if third.text == "=" and token.text == behind.text and token.text in "<>" else 2
        else:
            out.append(token)
            k += 1
    return out
