"""Lets workgroups take each other's places: a text whose groups run in the order that a buffer gives.

What a workgroup computes must not depend on when it runs; so with any order the results are the same, bit by bit. Adapters
run many groups at once, and GPUs the invocations of a group nearly in step, so that a race may come out the same way every
time. So an order is launched in parts, one after another, and half of the invocations of a GPU come late to the start of
their group and to all that follows a barrier.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from wgpu_nn.wgsl.declarations import Declarations, EntryPoint, Parameter, read
from wgpu_nn.wgsl.entry import OWN, Edits, builtin
from wgpu_nn.wgsl.tokens import tokens

MOVED = ("workgroup_id", "global_invocation_id", "local_invocation_id", "local_invocation_index")
BARRIERS = ("workgroupBarrier", "storageBarrier")
PARTS = 4
HEAD = 4  # words before the groups: whether to reverse invocations, who is late, the first rank of the part and the one behind
LATE = 2000  # turns of a loop, some microseconds: longer than the others take to go on to the next barrier

_PAUSE = f"""var<private> {OWN}wait: u32;
fn {OWN}pause() {{
    for (var n = 0u; n < {OWN}wait; n++) {{
        if ({OWN}order[n % {HEAD}u] == 0xffffffffu) {{ {OWN}wait = 0u; }} // never, which no compiler knows
    }}
}}"""


class Order(NamedTuple):
    """An order of ``groups`` and how it differs from the first; ``heads`` are what stands before them, part by part."""

    what: str
    heads: list[np.ndarray]
    groups: np.ndarray

    def words(self, head: np.ndarray) -> np.ndarray:
        """Return what the buffer of a part holds."""
        return np.concatenate([head, self.groups])


def orders(count: int, others: int, software: bool) -> Iterator[Order]:
    """Yield ``count`` groups as they are, backwards, and in random orders: ``others`` beside the first.

    Software adapters run the invocations of a group one after another anyway: none is late there.
    """
    rng = np.random.default_rng(count)
    ends = np.linspace(0, count, min(count, PARTS) + 1).astype(int)
    for n in range(others + 1):
        groups = np.arange(count) if n == 0 else np.arange(count)[::-1] if n == 1 else rng.permutation(count)
        late = 0 if n == 0 or software else 32 if n % 2 else 64  # neighbours run in step, so many of them
        heads = [np.array([n % 2, late, first, behind], np.uint32) for first, behind in pairwise(ends)]
        what = "" if n == 0 else "backwards" if n == 1 else f"in the order of permutation {n - 1}"
        yield Order(what, heads, groups.astype(np.uint32))


def shuffled(text: str, group: int, binding: int, declared: Declarations | None = None) -> str:
    """Return a text that reads one more storage binding, the words of a part of an ``Order``, and runs that part.

    Invocations within a workgroup are not reversed where subgroups are used, as these show the hardware's own order.
    """
    declared = declared or read(text)
    edits = Edits()
    for entry in declared.entry_points:
        if entry.stage == "compute":
            _shuffle(declared, entry, edits)
    found = tokens(text)
    for here, after in zip(found, found[3:]):
        if here.text in BARRIERS and after.text == ";":
            edits.insert(after.end, f" {OWN}pause();")
    binds = f"@group({group}) @binding({binding}) var<storage, read> {OWN}order: array<u32>;"
    return edits.apply(text, f"{binds}\n{_PAUSE}")


def _shuffle(declared: Declarations, entry: EntryPoint, edits: Edits) -> None:
    structs = {p.name: declared.structs.get(declared.type_of(p.type).name, ()) for p in entry.parameters}
    plain = [p for p in entry.parameters if p.builtin in MOVED]
    packed = [p for p in entry.parameters if any(m.builtin in MOVED for m in structs[p.name])]
    for p in (*plain, *packed):
        edits.insert(p.at, f"{OWN}raw_")
    names = {p.name for p in (*plain, *packed)}

    def raw(name: str) -> str:
        found = builtin(declared, entry, name, edits)
        return f"{OWN}raw_{found}" if found.partition(".")[0] in names else found

    group, groups, local = raw("workgroup_id"), raw("num_workgroups"), raw("local_invocation_id")
    size = f"vec3<u32>({', '.join(f'u32({n})' for n in entry.workgroup_size)})"
    turned = "false" if "subgroup" in declared.text or "quad" in declared.text else f"{OWN}order[0] != 0u"
    own = {
        "rank": f"{group}.x + {groups}.x * ({group}.y + {groups}.y * {group}.z)",
        "place": f"{OWN}order[{HEAD}u + {OWN}rank]",
        "group": f"vec3<u32>({OWN}place % {groups}.x, {OWN}place / {groups}.x % {groups}.y, "
        f"{OWN}place / ({groups}.x * {groups}.y))",
        "size": size,
        "raw": f"{local}.x + {OWN}size.x * ({local}.y + {OWN}size.y * {local}.z)",
        "local": f"select({local}, {OWN}size - 1u - {local}, {turned})",
        "global": f"{OWN}group * {OWN}size + {OWN}local",
        "index": f"{OWN}local.x + {OWN}size.x * ({OWN}local.y + {OWN}size.y * {OWN}local.z)",
    }
    moved: dict[str, str] = dict(zip(MOVED, (f"{OWN}{n}" for n in ("group", "global", "local", "index")), strict=True))
    lines = [f"let {OWN}{name} = {value};" for name, value in own.items()]
    lines += [f"let {p.name} = {moved[p.builtin]};" for p in plain]
    lines.insert(1, f"if ({OWN}rank < {OWN}order[2] || {OWN}rank >= {OWN}order[3]) {{ return; }}")
    is_late = f"{OWN}order[1] != 0u && {OWN}raw / max({OWN}order[1], 1u) % 2u == 1u"
    lines.append(f"{OWN}wait = select(0u, {LATE}u, {is_late}); {OWN}pause();")
    for p in packed:
        lines.append(f"var {p.name} = {OWN}raw_{p.name};")
        lines += [f"{p.name}.{m.name} = {moved[m.builtin]};" for m in structs[p.name] if _is_moved(m)]
    edits.insert(entry.body + 1, " " + " ".join(lines))


def _is_moved(member: Parameter) -> bool:
    return member.builtin in MOVED
