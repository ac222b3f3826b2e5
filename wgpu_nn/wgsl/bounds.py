"""Writes a check around every index of a text: what lies outside is reported, and then treated as WGSL says.

Watched are elements of arrays, vectors and matrices that a variable of module scope names, through members and further
indices: ``tile[i]``, ``in.rows[i][j].x``. Not watched are variables of functions, and what goes through a pointer variable
or parameter; ``watched`` says where the latter is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from wgpu_nn.wgsl.declarations import Declarations, EntryPoint, Type, read
from wgpu_nn.wgsl.entry import OWN, Edits, builtin
from wgpu_nn.wgsl.tokens import Token, closing, line, template_end, tokens

REPORT = f"{OWN}report"
WORDS = 8  # of an entry: site, index, length, 3 of the invocation; the first entry counts faults and invocations
MOST = 31  # entries after the first; what comes later is only counted
REPORT_BYTES = 4 * WORDS * (MOST + 1)

# An invocation keeps its first fault and tells it when it ends: with atomics at every index, unrolled kernels took minutes
# to compile.
_CHECK = f"""var<private> {OWN}faults: u32;
var<private> {OWN}fault: vec3<u32>;
fn {OWN}at(i: u32, n: u32, site: u32) -> u32 {{
    {OWN}fault = select({OWN}fault, vec3<u32>(site, i, n), i >= n && {OWN}faults == 0u);
    {OWN}faults += u32(i >= n);
    return i;
}}
fn {OWN}tell(who: vec3<u32>) {{
    if ({OWN}faults != 0u) {{
        atomicAdd(&{REPORT}[0], {OWN}faults);
        let k = atomicAdd(&{REPORT}[1], 1u);
        if (k < {MOST}u) {{
            let at = {WORDS}u * (k + 1u);
            atomicStore(&{REPORT}[at], {OWN}fault.x);
            atomicStore(&{REPORT}[at + 1u], {OWN}fault.y);
            atomicStore(&{REPORT}[at + 2u], {OWN}fault.z);
            atomicStore(&{REPORT}[at + 3u], who.x);
            atomicStore(&{REPORT}[at + 4u], who.y);
            atomicStore(&{REPORT}[at + 5u], who.z);
        }}
    }}
}}"""


class Site(NamedTuple):
    """A place of the text that indexes: which variable, in which address space, and whether it reads or writes there."""

    variable: str
    space: str
    what: str
    line: int
    column: int
    text: str


@dataclass(frozen=True, slots=True)
class Watched:
    """The text with checks, its sites by number, and the lines whose accesses go through pointers, unseen."""

    code: str
    sites: tuple[Site, ...]
    unseen: tuple[int, ...]


def watched(text: str, group: int, binding: int, declared: Declarations | None = None) -> Watched:
    """Return the text with checks that report to one more storage binding, REPORT_BYTES long and zeroed by the caller."""
    return _Watch(text, declared or read(text)).run(group, binding)


class _Watch:
    def __init__(self, text: str, declared: Declarations) -> None:
        self.text, self.declared, self.tokens = text, declared, tokens(text)
        self.edits = Edits()
        self.sites: list[Site] = []
        self.unseen: list[int] = []
        self.variables = {n: v for n, v in declared.variables.items() if v.space != "handle"}
        self.scopes: list[set[str]] = []  # the names that hide those of module scope, by block, innermost last

    def run(self, group: int, binding: int) -> Watched:
        k = 0
        while k < len(self.tokens):
            k = self._function(k) if self.tokens[k].text == "fn" else k + 1
        for entry in self.declared.entry_points:
            if entry.stage == "compute":
                self._tell(entry)
        report = f"@group({group}) @binding({binding}) var<storage, read_write> {REPORT}: array<atomic<u32>>;"
        code = self.edits.apply(self.text, f"{report}\n{_CHECK}")
        return Watched(code, tuple(self.sites), tuple(dict.fromkeys(self.unseen)))

    def _tell(self, entry: EntryPoint) -> None:
        """Let the entry point tell its fault wherever it ends."""
        who = builtin(self.declared, entry, "global_invocation_id", self.edits)
        first = next(k for k, token in enumerate(self.tokens) if token.start == entry.body)
        last = closing(self.tokens, first)
        for k in range(first, last):
            if self.tokens[k].text == "return":
                self.edits.insert(self.tokens[k].start, f"{{ {OWN}tell({who}); ")
                self.edits.insert(self.tokens[k + 1].end, " }")
        if self.tokens[last - 2].text != "return" or self.tokens[last - 1].text != ";":
            self.edits.insert(self.tokens[last].start, f" {OWN}tell({who}); ")

    def _function(self, k: int) -> int:
        opening = k + 2
        end = closing(self.tokens, opening)
        names = {
            self.tokens[j].text
            for j in range(opening + 1, end)
            if self.tokens[j].kind == "name" and self.tokens[j + 1].text == ":"
        }
        body = end
        while self.tokens[body].text != "{":
            body += 1
        self.scopes.append(names)
        last = closing(self.tokens, body)
        self._block(body + 1, last)
        self.scopes.pop()
        return last + 1

    def _block(self, k: int, last: int) -> None:
        """Walk statements; a name is known behind the statement that declares it, up to the end of its block."""
        loops: list[int] = []  # where the scopes of for statements end
        waiting: tuple[int, str] | None = None
        while k < last:
            while loops and loops[-1] <= k:
                loops.pop()
                self.scopes.pop()
            token = self.tokens[k]
            if waiting is not None and k >= waiting[0]:
                self.scopes[-1].add(waiting[1])
                waiting = None
            if token.text == "{":
                end = closing(self.tokens, k)
                self.scopes.append(set())
                self._block(k + 1, end)
                self.scopes.pop()
                k = end + 1
                continue
            if token.text == "for":
                block = closing(self.tokens, k + 1) + 1
                self.scopes.append(set())
                loops.append(closing(self.tokens, block) + 1)
                k += 2
                continue
            if token.text in ("let", "const", "var"):
                k, waiting = self._declaration(k)
                continue
            if token.kind == "name" and self.tokens[k - 1].text != ".":
                self._access(k)
            k += 1
        for _ in loops:
            self.scopes.pop()

    def _declaration(self, k: int) -> tuple[int, tuple[int, str]]:
        """Return where a declaration's value begins, and its name with the place from which on it is known."""
        k += 1
        if self.tokens[k].text == "<":
            k = template_end(self.tokens, k) + 1
        name = self.tokens[k].text
        while self.tokens[k].text not in ("=", ";"):
            k = template_end(self.tokens, k) if self.tokens[k].text == "<" else k
            k += 1
        end = k
        while self.tokens[end].text != ";":
            end = closing(self.tokens, end) + 1 if self.tokens[end].text in ("(", "[", "{") else end + 1
        return k, (end, name)

    def _access(self, k: int) -> None:
        """Check the indices behind a name, as far as its type is known."""
        name = self.tokens[k].text
        variable = self.variables.get(name)
        if variable is None or any(name in scope for scope in self.scopes):
            return
        space = variable.space
        kind: Type | None = variable.type
        pointer = self.tokens[k - 1].text == "&" and self.tokens[k - 2].text in ("(", ",", "=")
        length = self.tokens[k - 2].text == "(" and self.tokens[k - 3].text == "arrayLength"
        first, k = k, k + 1
        pending: list[tuple[Token, Token, str]] = []
        while kind is not None:
            mark = self.tokens[k].text
            if mark == "[" and kind.element is not None:
                end = closing(self.tokens, k)
                bound = kind.count
                if not bound:
                    bound = f"arrayLength(&{self.text[self.tokens[first].start : self.tokens[k].start]})"
                literal = end == k + 2 and self.tokens[k + 1].kind == "number" and kind.count
                if not literal:  # the compiler checks those
                    pending.append((self.tokens[k], self.tokens[end], bound))
                kind, k = kind.element, end + 1
            elif mark == "." and kind.name in self.declared.structs:
                wanted = self.tokens[k + 1].text
                member = next((m for m in self.declared.structs[kind.name] if m.name == wanted), None)
                kind, k = (self.declared.type_of(member.type) if member else None), k + 2
            else:
                break
        if pointer and not length and kind is not None and (kind.name == "array" or kind.name in self.declared.structs):
            self.unseen.append(line(self.text, self.tokens[first].start))
        what = self._what(first, k)
        for opening, close, bound in pending:
            self._site(name, space, what, first, opening, close, bound)

    def _what(self, first: int, k: int) -> str:
        while self.tokens[k].text == ".":  # a component
            k += 2
        here, after = self.tokens[k].text, self.tokens[min(k + 1, len(self.tokens) - 1)].text
        if self.tokens[first - 1].text == "&" and self.tokens[first - 2].text in ("(", ","):
            return "access"
        if here == "=" and after != "=":
            return "write"
        if (here in "+-" and after == here and self._closes(k + 2)) or (
            here in "+-*/%&|^" and after == "=" and self.tokens[k + 1].start == self.tokens[k].end
        ):
            return "write"
        return "read"

    def _closes(self, k: int) -> bool:
        return self.tokens[k].text in (";", ")", "{")

    def _site(self, name: str, space: str, what: str, first: int, opening: Token, close: Token, bound: str) -> None:
        start = self.tokens[first].start
        text = self.text[start : close.end]
        column = start - (self.text.rfind("\n", 0, start) + 1) + 1
        self.edits.insert(opening.end, f"{OWN}at(u32(")
        self.edits.insert(close.start, f"), u32({bound}), {len(self.sites)}u)")
        self.sites.append(Site(name, space, what, line(self.text, start), column, " ".join(text.split())))
