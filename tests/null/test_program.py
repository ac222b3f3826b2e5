"""Programs as text, tracing, and each pass by itself; no device."""

from __future__ import annotations

from typing import Any

import pytest

from wgpu_nn.backends.base import Traced
from wgpu_nn.dtype import BOOL, F32, I32
from wgpu_nn.errors import CaptureError, ShapeError
from wgpu_nn.graph import PASSES, Program, Trace, Value, simplify
from wgpu_nn.graph.passes import clean, dead_code, repeats
from wgpu_nn.ops import DEFAULT_DTYPES, Spec

X = Spec((2, 3), F32)


def trace() -> Trace:
    return Trace(DEFAULT_DTYPES, lambda handle: handle)  # handles of the backend are Specs here


def arg(t: Trace, *shape: int, dtype: Any = F32) -> Value:
    return t.input("arg", Spec(shape, dtype))


def text(program: Program) -> list[str]:
    return str(program).splitlines()


def ops(program: Program) -> list[str]:
    return [i.op for i in program.instrs]


# --- text and tracing --------------------------------------------------------------------------------------------------
def test_a_program_prints_shapes_kinds_ops_state_and_updates():
    t = trace()
    x, p = arg(t, 2, 3), t.input("state", Spec((3,), F32))
    (rate,) = t.host(lambda: [0.5])
    y = t.run("mul", x, p)
    s = t.run("sum", y, axes=(0,), keepdim=False)
    new = t.run("sub", p, t.run("mul", s, rate))
    mask = t.run("lt", t.run("add", new, Spec((3,), F32)), 1e-9)
    program = t.program([s, mask], {p.ref: new})
    assert (
        str(program)
        == """\
%0 = arg f32[2, 3]
%1 = state f32[3]
%2 = host f32[]
%7 = const f32[3]
%3 = mul(%0, %1) f32[2, 3]
%4 = sum(%3) axes=(0,) keepdim=False f32[3]
%5 = mul(%4, %2) f32[3]
%6 = sub(%1, %5) f32[3]
%8 = add(%6, %7) f32[3]
%9 = lt(%8, 1e-09) bool[3]
return %4, %9
%1 <- %6"""
    )


def test_a_program_without_results_returns_nothing():
    t = trace()
    arg(t, 1)
    assert text(t.program([], {}))[-1] == "return nothing"


def test_results_and_new_state_may_be_arguments_constants_and_old_state():
    t = trace()
    x, p, q, constant = arg(t, 2), t.input("state", Spec((2,), F32)), t.input("state", Spec((2,), F32)), Spec((2,), F32)
    program = t.program([x, constant, constant, p], {p.ref: x, q.ref: p})
    assert text(program)[3:] == ["%3 = const f32[2]", "return %0, %3, %3, %1", "%1 <- %0", "%2 <- %1"]


def test_each_instruction_knows_the_users_line():
    t = trace()
    t.run("neg", arg(t, 2))
    assert t.instrs[0].where.startswith(f"{__file__}:")


def test_ops_of_a_trace_are_checked_as_they_are_recorded():
    t = trace()
    with pytest.raises(ShapeError, match="add: shapes do not broadcast"):
        t.run("add", arg(t, 2), arg(t, 3))


def test_values_of_another_trace_and_of_a_closed_one_are_refused():
    t, other = trace(), trace()
    x, y = arg(t, 2), arg(other, 2)
    assert isinstance(x, Traced)
    with pytest.raises(CaptureError, match="escaped from another captured function"):
        t.run("add", x, y)
    t.program([x], {})
    with pytest.raises(CaptureError, match="after it was captured"):
        t.run("neg", x)


def test_host_numbers_are_asked_once_while_tracing_and_keep_their_order():
    t = trace()
    calls: list[int] = []

    def seed() -> tuple[int, int]:
        calls.append(1)
        return 3, len(calls)

    t.host(seed)
    t.host(lambda: [0.25])
    assert t.first == [3, 1, 0.25] and len(calls) == 1
    assert [str(i.spec) for i in t.inputs] == ["i32[]", "i32[]", "f32[]"]


# --- passes ------------------------------------------------------------------------------------------------------------
def test_dead_code_goes_and_what_state_needs_stays():
    t = trace()
    x, p = arg(t, 2), t.input("state", Spec((2,), F32))
    t.run("exp", t.run("neg", x))
    kept, new = t.run("abs", x), t.run("mul", p, 2.0)
    assert ops(dead_code(t.program([kept], {p.ref: new}))) == ["abs", "mul"]


def test_equal_expressions_are_computed_once_through_their_users():
    t = trace()
    x, y = arg(t, 2), arg(t, 2)
    a, b = (t.run("exp", t.run("add", x, y)) for _ in range(2))
    assert text(repeats(t.program([a, b, t.run("sub", a, b)], {})))[2:] == [
        "%2 = add(%0, %1) f32[2]",
        "%3 = exp(%2) f32[2]",
        "%6 = sub(%3, %3) f32[2]",
        "return %3, %3, %6",
    ]


@pytest.mark.parametrize("numbers", [(1, 1.0), (0.0, -0.0), (float("nan"), 0.0), (1.0, 1.0000001)])
def test_numbers_that_python_holds_for_equal_are_not_repeats(numbers: tuple[float, float]):
    t = trace()
    x = arg(t, 2)
    a, b = (t.run("add", x, n) for n in numbers)
    assert ops(repeats(t.program([a, b], {}))) == ["add", "add"]


def test_truths_and_numbers_are_not_repeats_and_shapes_and_types_count():
    t = trace()
    made = [
        t.run("full", 1, shape=(2,), dtype=I32), t.run("full", True, shape=(2,), dtype=BOOL),
        t.run("full", 1, shape=(2,), dtype=F32), t.run("full", 1, shape=(1, 2), dtype=F32),
    ]  # fmt: skip
    assert len(repeats(t.program(made, {})).instrs) == 4


def test_draws_of_other_streams_are_not_repeats_and_sub_is_not_symmetric():
    t = trace()
    x, y = arg(t, 2), arg(t, 2)
    draws = [t.run("uniform", *t.host(lambda: (1, 2)), shape=(2,)) for _ in range(2)]
    again = [t.run("uniform", 5, 6, shape=(2,)) for _ in range(2)]
    subs = [t.run("sub", x, y), t.run("sub", y, x)]
    assert ops(repeats(t.program([*draws, *again, *subs], {}))) == ["uniform"] * 3 + ["sub"] * 2


def test_what_is_exactly_nothing_goes():
    t = trace()
    x = arg(t, 2, 3)
    same = [
        t.run("mul", x, 1.0), t.run("mul", 1, x), t.run("div", x, 1), t.run("neg", t.run("neg", x)),
        t.run("reshape", t.run("reshape", x, shape=(6,)), shape=(2, 3)), t.run("expand", x, shape=(2, 3)),
        t.run("cast", x, dtype=F32), t.run("sum", x, axes=(), keepdim=False),
    ]  # fmt: skip
    program = dead_code(clean(t.program(same, {})))
    assert program.instrs == () and set(program.outputs) == {x.ref}


@pytest.mark.parametrize(
    ("op", "operands"),
    [("add", ("x", 0.0)), ("sub", (0.0, "x")), ("div", (1.0, "x")), ("mul", ("x", 0.0)), ("mul", ("x", -1.0)),
     ("pow", ("x", 1.0)), ("maximum", ("x", "x")), ("sub", ("x", "x"))],
)  # fmt: skip
def test_what_only_looks_like_nothing_stays(op: str, operands: tuple[Any, ...]):
    # x + 0 turns -0 into 0, x - x is NaN for infinities, and pow rounds.
    t = trace()
    x = arg(t, 2, 3)
    out = t.run(op, *(x if o == "x" else o for o in operands))
    assert ops(simplify(t.program([out], {}))) == [op]


def test_a_multiplication_by_one_that_broadcasts_stays():
    t = trace()
    out = t.run("mul", t.run("full", 1.0, shape=(4, 2), dtype=F32), arg(t, 2))
    assert ops(simplify(t.program([out], {}))) == ["full", "mul"]


def test_reshapes_of_reshapes_become_one_and_permutes_stay_between():
    t = trace()
    x = arg(t, 2, 3)
    y = t.run("reshape", t.run("reshape", t.run("reshape", x, shape=(6,)), shape=(3, 2)), shape=(1, 6))
    z = t.run("reshape", t.run("permute", t.run("reshape", x, shape=(3, 2)), axes=(1, 0)), shape=(6,))
    assert text(dead_code(clean(t.program([y, z], {}))))[1:] == [
        "%3 = reshape(%0) shape=(1,6) f32[1, 6]",
        "%4 = reshape(%0) shape=(3,2) f32[3, 2]",
        "%5 = permute(%4) axes=(1,0) f32[2, 3]",
        "%6 = reshape(%5) shape=(6,) f32[6]",
        "return %3, %6",
    ]


def test_maps_of_fills_and_numbers_are_computed_in_the_element_type():
    t = trace()
    two, third = (t.run("full", v, shape=(3,), dtype=F32) for v in (2.0, 1.0))
    out = t.run("div", third, t.run("add", two, 1))
    program = simplify(t.program([t.run("expand", t.run("reshape", out, shape=(1, 3)), shape=(2, 3))], {}))
    assert text(program) == ["%5 = full(0.33333334) dtype=f32 shape=(2,3) f32[2, 3]", "return %5"]


def test_int_fills_wrap_and_float_fills_overflow_without_a_warning():
    t = trace()
    big = t.run("full", 2**31 - 1, shape=(1,), dtype=I32)
    huge = t.run("full", 1e39, shape=(1,), dtype=F32)
    program = simplify(t.program([t.run("add", big, 1), t.run("mul", huge, 2.0)], {}))
    assert [i.operands for i in program.instrs] == [(-(2**31),), (float("inf"),)]


def test_a_filled_operand_becomes_its_number_where_a_tensor_stays_beside_it():
    t = trace()
    x, filled = arg(t, 2, 3), t.run("full", 0.5, shape=(2, 3), dtype=F32)
    wide, row = t.run("full", 0.5, shape=(4, 2, 3), dtype=F32), arg(t, 3)
    found = [t.run("mul", x, filled), t.run("mul", x, wide), t.run("mul", row, filled), t.run("where",
        t.run("lt", x, filled), filled, x), t.run("pow", x, filled)]  # fmt: skip
    assert text(simplify(t.program(found, {})))[2:] == [
        "%1 = full(0.5) dtype=f32 shape=(2,3) f32[2, 3]",
        "%2 = full(0.5) dtype=f32 shape=(4,2,3) f32[4, 2, 3]",
        "%4 = mul(%0, 0.5) f32[2, 3]",
        "%5 = mul(%0, %2) f32[4, 2, 3]",
        "%6 = mul(%3, %1) f32[2, 3]",
        "%7 = lt(%0, 0.5) bool[2, 3]",
        "%8 = where(%7, 0.5, %0) f32[2, 3]",
        "%9 = pow(%0, 0.5) f32[2, 3]",
        "return %4, %5, %6, %8, %9",
    ]


@pytest.mark.parametrize("name", [p.__name__ for p in PASSES])
def test_passes_keep_results_states_and_their_shapes(name: str):
    t = trace()
    x, p = arg(t, 2, 3), t.input("state", X)
    y = t.run("mul", t.run("neg", t.run("neg", x)), t.run("full", 1.0, shape=(2, 3), dtype=F32))
    new = t.run("add", p, t.run("mul", y, 1.0))
    program = t.program([y, t.run("mul", new, 1.0), x], {p.ref: new})
    found = next(f for f in PASSES if f.__name__ == name)(program)
    before, after = program.specs(), found.specs()
    assert [after[r] for r in found.outputs] == [before[r] for r in program.outputs]
    assert list(found.updates) == [p.ref] and after[found.updates[p.ref]] == X and found.inputs == program.inputs


def test_simplifying_twice_changes_nothing_more():
    t = trace()
    x = arg(t, 2, 3)
    y = t.run("add", t.run("mul", x, 1.0), t.run("add", t.run("neg", t.run("neg", x)), 0.0))
    once = simplify(t.program([t.run("reshape", t.run("reshape", y, shape=(6,)), shape=(3, 2))], {}))
    assert str(simplify(once)) == str(once)
