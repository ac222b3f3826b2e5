"""Finds units that do the same to other tensors, as an optimizer's do: one launch over all of them, side by side."""

from __future__ import annotations

from dataclasses import dataclass

from wgpu_nn.graph.flow import LIGHT, Flow, Unit
from wgpu_nn.graph.program import Ref
from wgpu_nn.shape import size


@dataclass(frozen=True, slots=True)
class Group:
    """Units with one formula. ``leaves`` gives, per operand of that many elements, each unit's value; ``outs`` likewise
    the results."""

    units: list[Unit]
    leaves: list[list[Ref]]
    outs: list[list[Ref]]


def find_groups(flow: Flow, units: list[Unit]) -> list[Group]:
    """Find units that replace state by the same formula."""
    updated = {flow.source(new): state for state, new in flow.program.updates.items()}
    found: dict[object, list[tuple[Unit, list[Ref], list[Ref]]]] = {}
    for unit in units:
        outs = [m.out for m in flow.stored(unit)] if unit.core is None else []
        own = {m.out for m in unit.maps}
        if not outs or any(o not in updated or any(u.out not in own for u in flow.readers(o)) for o in outs):
            continue
        sign, leaves = _signature(flow, unit)
        if sign is None or not _movable(flow, [updated[o] for o in outs], leaves, unit, units):
            continue
        replaced = tuple(leaves.index(updated[o]) if updated[o] in leaves else -1 for o in outs)
        if -1 in replaced:
            continue
        roles = tuple("state" if n in replaced else "temp" for n in range(len(leaves)))
        if any(role == "temp" and r not in flow.made for role, r in zip(roles, leaves, strict=True)):
            continue
        found.setdefault((sign, replaced, roles), []).append((unit, leaves, outs))
    groups: list[Group] = []
    seen: set[Ref] = set()
    maker = {i.out: u for u in units for i in u.instrs}
    for (_, _, roles), members in found.items():  # pyright: ignore[reportGeneralTypeIssues]
        kept: list[tuple[Unit, list[Ref], list[Ref]]] = []
        for unit, leaves, outs in members:
            # Leaves of a group share a buffer, which one launch cannot both read and write.
            chained = any(
                flow.touched(maker[r]) & others or any(r in flow.touched(maker[o]) for o in others)
                for r in leaves
                if r in maker
                for others in [{o for o in (*seen, *leaves) if o in maker}]
            )
            if not seen & set(leaves) and not chained:
                kept.append((unit, leaves, outs))
                seen |= set(leaves)
        if len(kept) > 1:
            columns = [[leaves[n] for _, leaves, _ in kept] for n in range(len(roles))]  # pyright: ignore[reportUnknownArgumentType]
            results = [[outs[n] for _, _, outs in kept] for n in range(len(kept[0][2]))]
            groups.append(Group([u for u, _, _ in kept], columns, results))
    return groups


def _movable(flow: Flow, states: list[Ref], leaves: list[Ref], unit: Unit, units: list[Unit]) -> bool:
    """Whether nothing reads the old state after ``unit``, wherever later it may run."""
    if any(s in flow.results for s in states) or any(flow.escapes(r) for r in leaves):
        return False
    later = units[units.index(unit) + 1 :]
    return not any(flow.touched(u) & set(states) for u in later)


def _signature(flow: Flow, unit: Unit) -> tuple[object | None, list[Ref]]:
    """Return a unit's formula with its tensors numbered, and those tensors; None if one is not of its size."""
    count = size(unit.maps[0].spec.shape)
    leaves: list[Ref] = []
    steps: dict[Ref, int] = {}
    parts: list[object] = []
    for m in unit.maps:
        operands: list[object] = []
        for x in m.operands:
            if not isinstance(x, Ref):
                operands.append((type(x).__name__, str(x)))
                continue
            s = flow.source(x)
            wide = flow.cheap.get(s)
            if wide is not None and size(wide.spec.shape) == 1 and wide.op in LIGHT and len(wide.refs) == 1:
                operands.append(("one", s))
                continue
            if wide is not None and flow.widens(s):
                operands.append(wide.spec.dtype.name)
                s = flow.source(wide.refs[0])
            if s in steps:
                operands.append(("step", steps[s]))
            elif s in flow.cheap:
                return None, []
            elif size(flow.specs[s].shape) == 1:
                operands.append(("one", s))
            elif size(flow.specs[s].shape) == count and s == flow.behind(s):
                if s not in leaves:
                    leaves.append(s)
                operands.append(("leaf", leaves.index(s), flow.specs[s].dtype.name))
            else:
                return None, []
        steps[m.out] = len(steps)
        parts.append((m.op, tuple(operands), m.spec.dtype.name, tuple(a for a in m.attrs if a[0] == "dtype")))
    return (tuple(parts), tuple(steps[o.out] for o in flow.stored(unit))), leaves
