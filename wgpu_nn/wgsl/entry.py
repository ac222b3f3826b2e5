"""The builtin values of an entry point: where they are named, and how to name those that are not."""

from __future__ import annotations

from dataclasses import dataclass, field

from wgpu_nn.wgsl.declarations import Declarations, EntryPoint

OWN = "wgpu_nn_"  # what every name of ours begins with
TYPES = {"local_invocation_index": "u32"}  # all others are vec3<u32>


@dataclass(slots=True)
class Edits:
    """Insertions into a text; none moves a line, so that the compiler's line numbers stay the file's."""

    at: list[tuple[int, int, str]] = field(default_factory=list[tuple[int, int, str]])

    def insert(self, place: int, text: str) -> None:
        """Put ``text`` before the character at ``place``, after what was put there before."""
        self.at.append((place, len(self.at), text))

    def apply(self, text: str, appended: str) -> str:
        """Return the text with all insertions, and ``appended`` behind it."""
        out: list[str] = []
        last = 0
        for place, _, new in sorted(self.at):
            out += [text[last:place], new]
            last = place
        return f"{''.join(out)}{text[last:]}\n{appended}\n"


def builtin(found: Declarations, entry: EntryPoint, name: str, edits: Edits) -> str:
    """Return the WGSL that names a builtin value inside the entry point, which gets another parameter if it must."""
    for p in entry.parameters:
        if p.builtin == name:
            return p.name
        for member in found.structs.get(found.type_of(p.type).name, ()):
            if member.builtin == name:
                return f"{p.name}.{member.name}"
    own = f"{OWN}{name}"
    comma = "" if not entry.parameters or found.text[: entry.parenthesis].rstrip().endswith(",") else ", "
    if any(text.lstrip(", ").startswith("@builtin") and place == entry.parenthesis for place, _, text in edits.at):
        comma = ", "
    edits.insert(entry.parenthesis, f"{comma}@builtin({name}) {own}: {TYPES.get(name, 'vec3<u32>')}")
    return own
