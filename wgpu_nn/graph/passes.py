"""Passes from Program to Program that change no value: dead code, repeats, folding, clean-ups. None needs a device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from wgpu_nn.graph.assembled import assembled
from wgpu_nn.graph.program import Instr, Operand, Program, Ref
from wgpu_nn.ops import OPS, Category, Spec
from wgpu_nn.shape import broadcast

Pass = Callable[[Program], Program]


def dead_code(program: Program) -> Program:
    """Drop instructions whose results nothing needs."""
    needed = program.results()
    kept: list[Instr] = []
    for i in reversed(program.instrs):
        if i.out in needed:
            kept.append(i)
            needed |= set(i.refs)
    return program.with_instrs(kept[::-1])


def repeats(program: Program) -> Program:
    """Compute equal expressions once. Draws differ in their stream numbers, so they are never equal by accident."""
    seen: dict[object, Ref] = {}
    names: dict[Ref, Ref] = {}
    kept: list[Instr] = []
    for i in program.instrs:
        operands = tuple(_renamed(x, names) for x in i.operands)
        # 1 == 1.0 == True in Python; here they are three numbers. -0.0 is not 0.0 either.
        key = (i.op, tuple((type(x), str(x)) for x in operands), i.attrs)
        if key in seen:
            names[i.out] = seen[key]
        else:
            seen[key] = i.out
            kept.append(replace(i, operands=operands))
    return program.with_instrs(kept, names)


def _renamed(x: Operand, names: dict[Ref, Ref]) -> Operand:
    return names.get(x, x) if isinstance(x, Ref) else x


def clean(program: Program) -> Program:
    """Drop what is exactly nothing: x * 1, x / 1, --x, views of the same shape, casts to the same type;
    reshapes of reshapes become one. x + 0 stays: it turns -0 into 0."""
    specs = program.specs()
    made: dict[Ref, Instr] = {}
    names: dict[Ref, Ref] = {}
    kept: list[Instr] = []
    for old in program.instrs:
        i = replace(old, operands=tuple(_renamed(x, names) for x in old.operands))
        if i.op == "reshape":
            source = i.operands[0]
            while isinstance(source, Ref) and source in made and made[source].op == "reshape":
                source = made[source].operands[0]
            i = replace(i, operands=(source,))
        same = _nothing(i, specs, made)
        if same is not None and specs[same] == i.spec:
            names[i.out] = same
            continue
        made[i.out] = i
        kept.append(i)
    return program.with_instrs(kept, names)


def _nothing(i: Instr, specs: dict[Ref, Spec], made: dict[Ref, Instr]) -> Ref | None:
    """Return the operand that ``i`` equals exactly, if there is one."""
    first = i.operands[0] if i.operands else None
    second = i.operands[1] if len(i.operands) > 1 else None
    one = lambda x: not isinstance(x, Ref) and x is not None and x == 1
    if i.op in ("mul", "div") and isinstance(first, Ref) and one(second):
        return first
    if i.op == "mul" and isinstance(second, Ref) and one(first):
        return second
    if i.op in ("reshape", "expand", "cast") and isinstance(first, Ref) and specs[first] == i.spec:
        return first
    if i.op == "neg" and isinstance(first, Ref) and first in made and made[first].op == "neg":
        inner = made[first].operands[0]
        return inner if isinstance(inner, Ref) else None
    if i.op in ("sum", "mean", "max", "min", "prod") and isinstance(first, Ref) and specs[first] == i.spec:
        return first  # axes of one element, kept
    return None


def fold(program: Program) -> Program:
    """Compute maps of filled tensors and numbers now: full(2) * 3 is full(6), in the element type's arithmetic."""
    specs = program.specs()
    filled: dict[Ref, object] = {}
    kept: list[Instr] = []
    for i in program.instrs:
        if i.op == "full" and not isinstance(i.operands[0], Ref):
            with np.errstate(all="ignore"):
                filled[i.out] = np.asarray(i.operands[0], i.spec.dtype.numpy)[()]
            kept.append(i)
            continue
        if i.op in ("reshape", "expand", "permute") and i.operands[0] in filled:
            filled[i.out] = filled[i.operands[0]]  # pyright: ignore[reportArgumentType]
            kept.append(_full(i, filled[i.out]))
            continue
        value = _folded(i, filled)
        if value is None:
            # A filled operand is as good as its number wherever numbers may stand; one must remain a tensor.
            kept.append(_numbers_for_fills(i, filled, specs))
            continue
        filled[i.out] = value
        kept.append(_full(i, value))
    return program.with_instrs(kept)


_FOLDABLE = {"add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "neg": "negative"}


def _folded(i: Instr, filled: dict[Ref, object]) -> object | None:
    if i.op not in _FOLDABLE or not any(x in filled for x in i.operands if isinstance(x, Ref)):
        return None
    values: list[object] = []
    for x in i.operands:
        if isinstance(x, Ref):
            if x not in filled:
                return None
            values.append(filled[x])
        else:
            values.append(np.asarray(x, i.spec.dtype.numpy)[()])
    with np.errstate(all="ignore"):
        found = getattr(np, _FOLDABLE[i.op])(*values)
    return np.asarray(found, i.spec.dtype.numpy)[()]


def _number(value: object) -> Operand:
    return value.item()  # pyright: ignore[reportAttributeAccessIssue]


def _full(i: Instr, value: object) -> Instr:
    return replace(i, op="full", operands=(_number(value),), attrs=(("dtype", i.spec.dtype), ("shape", i.spec.shape)))


def _numbers_for_fills(i: Instr, filled: dict[Ref, object], specs: dict[Ref, Spec]) -> Instr:
    if i.op == "cross_entropy_grad":  # its cotangent may be one number for all rows
        g = i.operands[0]
        return replace(i, operands=(_number(filled[g]), *i.operands[1:])) if isinstance(g, Ref) and g in filled else i
    if OPS[i.op].category is not Category.MAP or i.op == "cast":
        return i
    operands = list(i.operands)
    first = 1 if i.op == "where" else 0
    for k in range(first, len(operands)):
        x = operands[k]
        others = [y for n, y in enumerate(operands) if n != k and isinstance(y, Ref) and n >= first]
        if isinstance(x, Ref) and x in filled and others:
            number = _number(filled[x])
            if isinstance(number, float) and math.isnan(number):
                continue
            operands[k] = number
    trial = replace(i, operands=tuple(operands))
    left = [specs[x] for x in trial.refs]
    # What remains must still give the result its shape, and one number its element type.
    return trial if left and broadcast(i.op, *(s.shape for s in left)) == i.spec.shape else i


PASSES: tuple[Pass, ...] = (dead_code, clean, assembled, fold, clean, repeats, dead_code)


def simplify(program: Program, report: Callable[[str, Program], None] | None = None) -> Program:
    """Run all passes in order; ``report`` sees the program after each."""
    for p in PASSES:
        program = p(program)
        if report is not None:
            report(p.__name__, program)
    return program
