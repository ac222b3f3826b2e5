"""Lets workgroups take each other's places: a text whose groups run in the order that a buffer gives.

What a workgroup computes must not depend on when it runs; so with any order the results are the same, bit by bit.
"""

from __future__ import annotations

from wgpu_nn.wgsl.declarations import Declarations, EntryPoint, Parameter, read
from wgpu_nn.wgsl.entry import OWN, Edits, builtin

MOVED = ("workgroup_id", "global_invocation_id", "local_invocation_id", "local_invocation_index")


def shuffled(text: str, group: int, binding: int, declared: Declarations | None = None) -> str:
    """Return a text that reads one more storage binding of u32: whether to reverse invocations, then a group for each group.

    Invocations within a workgroup are numbered backwards if the first word is not 0; not where subgroups are used, as
    these show the hardware's own order.
    """
    declared = declared or read(text)
    edits = Edits()
    for entry in declared.entry_points:
        if entry.stage == "compute":
            _shuffle(declared, entry, edits)
    return edits.apply(text, f"@group({group}) @binding({binding}) var<storage, read> {OWN}order: array<u32>;")


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
    linear = f"{group}.x + {groups}.x * ({group}.y + {groups}.y * {group}.z)"
    own = {
        "place": f"{OWN}order[1u + {linear}]",
        "group": f"vec3<u32>({OWN}place % {groups}.x, {OWN}place / {groups}.x % {groups}.y, "
        f"{OWN}place / ({groups}.x * {groups}.y))",
        "size": size,
        "local": f"select({local}, {OWN}size - 1u - {local}, {turned})",
        "global": f"{OWN}group * {OWN}size + {OWN}local",
        "index": f"{OWN}local.x + {OWN}size.x * ({OWN}local.y + {OWN}size.y * {OWN}local.z)",
    }
    moved: dict[str, str] = dict(zip(MOVED, (f"{OWN}{n}" for n in ("group", "global", "local", "index")), strict=True))
    lines = [f"let {OWN}{name} = {value};" for name, value in own.items()]
    lines += [f"let {p.name} = {moved[p.builtin]};" for p in plain]
    for p in packed:
        lines.append(f"var {p.name} = {OWN}raw_{p.name};")
        lines += [f"{p.name}.{m.name} = {moved[m.builtin]};" for m in structs[p.name] if _is_moved(m)]
    edits.insert(entry.body + 1, " " + " ".join(lines))


def _is_moved(member: Parameter) -> bool:
    return member.builtin in MOVED
