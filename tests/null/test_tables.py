"""An op has a row in every table that needs one: compared by name, so that a missing row is named."""

from __future__ import annotations

import pytest

from tests.cases import TABLE as CASES
from tests.cases import Arg
from wgpu_nn.autodiff.rules import NO_GRADIENT, RULES, Each
from wgpu_nn.backends.numpy import TABLE as NUMPY
from wgpu_nn.dtype import BOOL, F32, I32, Float
from wgpu_nn.kernels import PLANNERS
from wgpu_nn.kernels.expressions import EXPRESSIONS, expression
from wgpu_nn.kernels.fold import AHEAD, COMBINE, IDENTITY, STRUCTS
from wgpu_nn.kernels.views import VIEWS
from wgpu_nn.ops import OPS, Category

OF = {c: {name for name, row in OPS.items() if row.category is c} for c in Category}


@pytest.mark.parametrize(
    ("table", "rows", "wanted"),
    [
        ("NumPy", NUMPY, OPS),
        ("planners and views", PLANNERS | VIEWS, OPS),
        ("gradient rules and the list without", RULES.keys() | NO_GRADIENT, OPS),
        ("cases of the tests", CASES, OPS),
        ("views", VIEWS, OF[Category.VIEW]),
        ("expressions", EXPRESSIONS, (OF[Category.MAP] | OF[Category.SOURCE]) - {"cast"}),
        ("reductions", COMBINE.keys() | STRUCTS.keys() | {op for op, _ in AHEAD}, OF[Category.REDUCE]),
        ("identities", IDENTITY, COMBINE),
    ],
)  # fmt: skip
def test_a_table_has_a_row_for_each_op_and_no_other(table: str, rows: object, wanted: object) -> None:
    have, need = set(rows), set(wanted)  # pyright: ignore[reportArgumentType]
    assert have == need, f"{table}: missing {sorted(need - have)}, unknown {sorted(have - need)}"


def test_an_op_is_planned_or_a_view_and_has_rules_or_none() -> None:
    assert not PLANNERS.keys() & VIEWS.keys()
    assert not RULES.keys() & NO_GRADIENT


@pytest.mark.parametrize("op", sorted(RULES))
def test_an_op_has_one_gradient_rule_per_operand(op: str) -> None:
    rules = RULES[op]
    assert isinstance(rules, Each) or len(rules) == OPS[op].arity[1]


@pytest.mark.parametrize("op", sorted(OPS))
def test_a_gradient_is_defined_where_the_result_is_a_float(op: str) -> None:
    from tests.plans import TARGETS, Plans

    plans = Plans(TARGETS["software"])
    made: list[bool] = []
    plans.run = lambda op, operands, attrs, run=plans.run: (
        made.append((out := run(op, operands, attrs)).dtype.kind is Float) or out
    )  # pyright: ignore
    for case in CASES[op]:
        plans.case(case)
        if made[-1] and any(isinstance(a, Arg) and a.kind is Float for a in case.args):
            assert op in RULES, f"{case.name} gives a Float of a Float, and has no rule"


@pytest.mark.parametrize("op", sorted(OF[Category.MAP] - {"cast", "where"}))
def test_an_expression_exists_for_each_kind_that_the_op_takes(op: str) -> None:
    from wgpu_nn.errors import KindError
    from wgpu_nn.ops import DEFAULT_DTYPES, Spec, infer

    taken = 0
    for dtype in (F32, I32, BOOL):
        try:
            out = infer(op, [Spec((2,), dtype)] * OPS[op].arity[0], {}, DEFAULT_DTYPES)
        except KindError:
            continue
        taken += 1
        assert expression(op, dtype, out.dtype)
    assert taken
