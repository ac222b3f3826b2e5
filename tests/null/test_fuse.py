"""How programs are cut into launches, and that what comes out respects order and limits; no device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from wgpu_nn.dtype import F32, I32, DType
from wgpu_nn.graph import Program, Ref, Trace, Value, simplify
from wgpu_nn.graph.emit import plan_fused
from wgpu_nn.graph.flow import Unit
from wgpu_nn.graph.fuse import Fused, fuse
from wgpu_nn.graph.plan import Plan, plan_plainly
from wgpu_nn.kernels import Target
from wgpu_nn.kernels.plan import Slot
from wgpu_nn.ops import DEFAULT_DTYPES, OPS, Category, Spec

TARGET = Target(software=True, invocations=256, storage=16384, bindings=8)


class Maker:
    """Writes programs down: one trace, with the words that the tests need."""

    def __init__(self) -> None:
        self.trace = Trace(DEFAULT_DTYPES, lambda spec: spec)

    def arg(self, *shape: int) -> Value:
        return self.trace.input("arg", Spec(shape, F32))

    def state(self, *shape: int) -> Value:
        return self.trace.input("state", Spec(shape, F32))

    def __getattr__(self, op: str) -> Any:
        return lambda *xs, **attrs: self.trace.run(op, *xs, **attrs)

    def sums(self, x: Value, *axes: int) -> Value:
        return self.trace.run("sum", x, axes=axes, keepdim=False)

    def program(self, *outs: Value, updates: dict[Value, Value] | None = None) -> Program:
        return self.trace.program(outs, {s.ref: v for s, v in (updates or {}).items()})


def shown(unit: Unit) -> str:
    """before > core > maps + along"""
    parts = [" ".join(m.op for m in unit.before.maps)] if unit.before else []
    parts += [unit.core.op] if unit.core else []
    parts += [" ".join(m.op for m in unit.maps)] if unit.maps else []
    return " > ".join(parts) + (f" + {unit.along.op}" if unit.along else "")


def cut(program: Program, bindings: int = 8) -> list[str]:
    fused = fuse(program, bindings)
    check_order(fused)
    return [shown(u) for u in fused.units]


def check_order(fused: Fused) -> None:
    """Every unit comes after all that it reads, and every instruction that is needed has a unit."""
    made = {i.out for i in fused.program.instrs if OPS[i.op].category is not Category.VIEW}
    ready: set[Ref] = {i.ref for i in fused.program.inputs} | fused.flow.cheap.keys()
    for unit in fused.units:
        missing = fused.flow.touched(unit) - ready
        assert not missing, f"{shown(unit)} reads {missing} too early"
        ready |= {i.out for i in unit.instrs}
    assert made <= ready


def planned(program: Program) -> Plan:
    """Return the plan, after checking that no launch reads a buffer that it writes in WebGPU's sense: as a whole."""
    plan = plan_fused(program, {}, TARGET)
    for d in plan.dispatches:
        assert len(d.slots) <= TARGET.bindings, f"{d.kernel.name} binds {len(d.slots)}"
        read = {home(s) for s, a in zip(d.slots, d.kernel.access, strict=True) if a == "r"}
        written = {home(s) for s, a in zip(d.slots, d.kernel.access, strict=True) if a == "w"}
        assert not read & written, f"{d.kernel.name} reads what it writes"
    return plan


def home(slot: Slot) -> Slot:
    return slot.parent or slot


# --- maps --------------------------------------------------------------------------------------------------------------
def test_a_chain_of_maps_is_one_launch():
    m = Maker()
    x, y = m.arg(2, 3), m.arg(3)
    assert cut(m.program(m.exp(m.mul(m.add(x, y), 2.0)))) == ["add mul exp"]


def test_a_value_that_is_read_twice_joins_both_readers():
    m = Maker()
    x = m.arg(6)
    a = m.exp(x)
    program = m.program(m.add(m.mul(a, 2.0), m.sub(a, 1.0)), a)
    assert cut(program) == ["exp mul sub add"]
    assert [len(d.slots) for d in planned(program).dispatches] == [3]


def test_a_map_of_another_size_starts_a_launch_of_its_own():
    m = Maker()
    row = m.exp(m.arg(3))
    assert cut(m.program(m.tanh(m.add(m.arg(2, 3), row)))) == ["exp", "add tanh"]


def test_reshapes_are_seen_through_and_other_views_are_not():
    m = Maker()
    x = m.exp(m.arg(2, 3))
    assert cut(m.program(m.tanh(m.reshape(x, shape=(6,))))) == ["exp tanh"]
    m = Maker()
    x = m.exp(m.arg(2, 3))
    assert cut(m.program(m.tanh(m.permute(x, axes=(1, 0))))) == ["exp", "tanh"]


def test_maps_that_read_each_other_transposed_are_apart():
    m = Maker()
    x = m.exp(m.arg(3, 3))
    assert cut(m.program(m.add(x, m.permute(x, axes=(1, 0))))) == ["exp", "add"]


def test_maps_with_a_third_between_them_are_apart():
    m = Maker()
    a = m.exp(m.arg(32, 32))
    between = m.matmul(a, m.arg(32, 32))
    out = m.add(a, m.sums(between, 0, 1))  # needs a, and what is made of a
    units = cut(m.program(out))
    assert units == ["exp", "matmul", "sum", "add"]


def test_a_cycle_by_way_of_two_others_is_not_closed():
    m = Maker()
    a = m.exp(m.arg(4))
    wide = m.mul(m.reshape(a, shape=(4, 1)), m.arg(4, 5))
    out = m.mul(m.sub(a, 1.0), m.sums(wide, 1))
    assert cut(m.program(out)) == ["exp sub", "mul > sum > mul"]


def test_a_launch_binds_no_more_than_the_adapter_allows():
    m = Maker()
    total = m.arg(7)
    for _ in range(20):
        total = m.add(total, m.arg(7))
    program = m.program(total)
    assert 3 <= len(cut(program)) <= 4
    planned(program)


def test_one_tensor_in_many_views_counts_as_many_bindings():
    m = Maker()
    x = m.arg(40)
    parts = [m.slice(x, ranges=((k, 1, 3),)) for k in range(20)]
    total = parts[0]
    for p in parts[1:]:
        total = m.add(total, p)
    planned(m.program(total))


def test_host_numbers_count_as_bindings():
    m = Maker()
    total = m.arg(7)
    for number in m.trace.host(lambda: [0.5] * 12):
        total = m.add(total, number)
    planned(m.program(total))


# --- cheap values ------------------------------------------------------------------------------------------------------
def test_random_numbers_are_made_again_by_each_reader():
    m = Maker()
    seed, stream = m.trace.host(lambda: (1, 2))
    mask = m.lt(m.uniform(seed, stream, shape=(4, 5)), 0.5)
    x = m.matmul(m.arg(4, 3), m.arg(3, 5))
    y = m.where(mask, x, 0.0)
    again = m.where(mask, m.arg(4, 5), 0.0)
    program = m.program(y, again)
    assert cut(program) == ["matmul > where", "where"]
    # a, b, seed, stream, out; and in a map alone, where host numbers share a binding, x, seed and stream, out
    assert [len(d.slots) for d in planned(program).dispatches] == [5, 3]


@pytest.mark.parametrize("reader", ["sum", "expand", "output"])
def test_random_numbers_are_stored_for_what_cannot_make_them(reader: str):
    m = Maker()
    u = m.uniform(1, 2, shape=(4, 1))
    out = {"sum": lambda: m.sums(u, 0), "expand": lambda: m.exp(m.expand(u, shape=(4, 3))), "output": lambda: u}[
        reader
    ]()
    program = m.program(out, m.mul(u, m.arg(4, 1)))
    assert cut(program).count("uniform") == 1
    planned(program)


# --- around routines ---------------------------------------------------------------------------------------------------
def test_a_product_takes_its_bias_and_activation_along():
    m = Maker()
    y = m.relu(m.add(m.matmul(m.arg(4, 5), m.arg(5, 6)), m.arg(6)))
    program = m.program(y)
    assert cut(program) == ["matmul > add relu"]
    assert [len(d.slots) for d in planned(program).dispatches] == [4]


def test_a_product_that_is_also_returned_or_seen_transposed_is_stored():
    for extra in (lambda m, y: y, lambda m, y: m.exp(m.permute(y, axes=(1, 0)))):
        m = Maker()
        y = m.matmul(m.arg(4, 5), m.arg(5, 4))
        assert cut(m.program(m.relu(y), extra(m, y)))[0] == "matmul"


def test_maps_run_with_the_last_of_two_products_that_they_read():
    m = Maker()
    a, b = (m.matmul(m.arg(4, 5), m.arg(5, 6)) for _ in range(2))
    assert cut(m.program(m.add(a, b))) == ["matmul", "matmul > add"]


def test_a_reduction_takes_maps_at_both_ends():
    m = Maker()
    x = m.arg(4, 5)
    program = m.program(m.sqrt(m.add(m.sums(m.mul(x, x), 1), 1.0)))
    assert cut(program) == ["mul > sum > add sqrt"]
    assert [len(d.slots) for d in planned(program).dispatches] == [2]


def test_maps_before_a_reduction_that_something_else_reads_are_stored():
    m = Maker()
    square = m.mul(m.arg(4, 5), 2.0)
    assert cut(m.program(m.sums(square, 1), m.exp(square))) == ["mul exp", "sum"]
    m = Maker()
    square = m.mul(m.arg(4, 5), 2.0)
    assert cut(m.program(m.sums(square, 1), square)) == ["mul", "sum"]


def test_a_weights_gradient_brings_its_biass():
    m = Maker()
    x, g = m.arg(4, 5), m.arg(4, 6)
    program = m.program(m.matmul(m.permute(x, axes=(1, 0)), g), m.sums(g, 0))
    assert cut(program) == ["matmul + sum"]
    assert len(planned(program).dispatches) == 1


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("axes", [2, 3])
def test_a_weight_gradient_of_a_convolution_takes_that_of_its_bias_along(axes: int, groups: int) -> None:
    m = Maker()
    x, g = m.arg(2, 4, *(3,) * axes), m.arg(2, 6, *(2,) * axes)
    attrs = {"stride": (1,) * axes, "padding": ((0, 0),) * axes, "dilation": (1,) * axes, "groups": groups}
    weight = m.trace.run(f"conv{axes}d_weight_grad", x, g, shape=(6, 4 // groups, *(2,) * axes), **attrs)
    program = m.program(weight, m.sums(g, 0, *range(2, axes + 2)))
    assert cut(program) == [f"conv{axes}d_weight_grad + sum"]
    planned(program)


def test_the_gradient_of_losses_takes_them_along() -> None:
    m = Maker()
    logits, targets = m.arg(4, 3), m.trace.input("arg", Spec((4,), I32))
    program = m.program(m.cross_entropy(logits, targets), m.cross_entropy_grad(m.arg(4), logits, targets))
    assert cut(program) == ["cross_entropy_grad + cross_entropy"]
    assert len(planned(program).dispatches) == 1


@pytest.mark.parametrize("way", ["straight", "by a third"])
def test_what_a_routine_waits_for_is_not_taken_along(way: str) -> None:
    m = Maker()
    logits, targets = m.arg(4, 3), m.trace.input("arg", Spec((4,), I32))
    losses, sums = m.cross_entropy(logits, targets), m.sums(logits, 0)
    g, x = (losses, sums) if way == "straight" else (m.cumsum(losses, axis=0), m.cumsum(sums, axis=0))
    rows = m.reshape(x, shape=(3, 1))
    product = m.matmul(m.expand(rows, shape=(3, 4)), logits)
    program = m.program(m.cross_entropy_grad(g, logits, targets), product)
    between = ["cumsum"] * 2 * (way != "straight")
    assert sorted(cut(program)) == sorted(["cross_entropy", "cross_entropy_grad", "sum", "matmul", *between])
    planned(program)


# --- state -------------------------------------------------------------------------------------------------------------
def sgd(m: Maker, shapes: Sequence[tuple[int, ...]], grads: Any) -> Program:
    states = [m.state(*s) for s in shapes]
    (rate,) = m.trace.host(lambda: [0.1])
    found = grads(states)
    return m.program(updates={p: m.sub(p, m.mul(g, rate)) for p, g in zip(states, found, strict=True)})


def products(m: Maker, states: Sequence[Value]) -> list[Value]:
    """Gradients that a routine makes, so that they are stored."""
    target = lambda p: m.trace.input("arg", Spec(p.spec.shape, I32))
    return [m.cross_entropy(m.arg(*p.spec.shape, 3), target(p)) for p in states]


def test_updates_by_one_formula_are_one_launch_in_place():
    m = Maker()
    program = sgd(m, [(5,), (7,), (300,)], lambda states: products(m, states))
    (group,) = fuse(program, 8).groups
    assert len(group.units) == 3
    plan = planned(program)
    assert len(plan.dispatches) == 4 and not plan.copies and len(plan.arenas) == 1
    offsets = list(plan.arenas[0][1].values())
    assert offsets == [0, 256, 512]


def test_one_update_is_in_place_by_itself():
    m = Maker()
    p = m.state(5)
    plan = planned(m.program(updates={p: m.mul(p, 0.5)}))
    assert len(plan.dispatches) == 1 and not plan.copies


@pytest.mark.parametrize("dtype", [F32, I32])
def test_a_sum_that_is_added_to_state_is_one_launch_in_place(dtype: DType):
    m = Maker()
    total, x = (m.trace.input(role, Spec(shape, dtype)) for role, shape in (("state", (4,)), ("arg", (3, 4))))
    program = m.program(updates={total: m.add(total, m.sums(x, 0))})
    assert cut(program) == ["sum > add"]
    plan = planned(program)
    assert [len(d.slots) for d in plan.dispatches] == [2] and not plan.copies


def test_a_sum_over_what_reads_the_state_that_it_replaces_is_copied_there():
    m = Maker()
    total, x = m.state(4), m.arg(3, 4)
    plan = planned(m.program(updates={total: m.add(total, m.sums(m.mul(x, total), 0))}))
    assert len(plan.dispatches) == 1 and len(plan.copies) == 1


def test_an_update_is_a_copy_where_the_old_value_is_still_needed():
    for later in (
        lambda m, p: p,
        lambda m, p: m.reshape(p, shape=(1, 5)),
        lambda m, p: m.slice(p, ranges=((1, 1, 2),)),
    ):
        m = Maker()
        p = m.state(5)
        plan = planned(m.program(later(m, p), updates={p: m.mul(p, 0.5)}))
        assert len(plan.copies) == 1


def test_state_that_is_read_through_another_view_too_is_not_replaced_in_place():
    m = Maker()
    p = m.state(5, 5)
    plan = planned(m.program(updates={p: m.add(p, m.permute(p, axes=(1, 0)))}))
    assert len(plan.copies) == 1


def test_two_states_that_are_exchanged_pass_through_a_third_place():
    m = Maker()
    p, q = m.state(5), m.state(5)
    plan = planned(m.program(updates={p: q, q: p}))
    assert len(plan.copies) == 2 and not {v.buffer for v, _ in plan.copies} & {s for _, s in plan.copies}


def test_gradients_that_are_made_of_each_other_are_not_side_by_side():
    m = Maker()

    def chained(states: Sequence[Value]) -> list[Value]:
        first = m.matmul(m.arg(4, 3), m.arg(3, 5))
        return [first, m.sums(first, 0)]

    planned(sgd(m, [(4, 5), (5,)], chained))


def test_a_gradient_of_two_formulas_is_in_one_place():
    m = Maker()
    p, q, r, s = (m.state(6) for _ in range(4))
    g, h = (m.matmul(m.arg(1, 4), m.arg(4, 6)) for _ in range(2))
    flat = [m.reshape(x, shape=(6,)) for x in (g, h)]
    updates = {x: m.sub(x, m.mul(y, 0.1)) for x, y in zip((p, q), flat, strict=True)}
    updates |= {x: m.sub(x, m.mul(m.mul(y, y), 0.1)) for x, y in zip((r, s), flat, strict=True)}
    program = m.program(updates=updates)
    leaves = [r for group in fuse(program, 8).groups for column in group.leaves for r in column]
    assert len(leaves) == len(set(leaves))
    planned(program)


# --- all of it ---------------------------------------------------------------------------------------------------------
def test_plans_with_and_without_fusion_have_the_same_results_and_state():
    m = Maker()
    x, p = m.arg(4, 5), m.state(5)
    y = m.relu(m.add(x, p))
    program = simplify(m.program(y, m.sums(y, 0, 1), updates={p: m.add(p, m.sums(x, 0))}))
    plain, fused = plan_plainly(program, {}, TARGET), planned(program)
    for plan in (plain, fused):
        assert [v.shape for v in plan.outputs] == [(4, 5), ()] and plan.written == {p.ref}
    assert len(fused.dispatches) < len(plain.dispatches)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_programs_of_nothing_launch_nothing(shape: tuple[int, ...]):
    m = Maker()
    x, p = m.arg(*shape), m.state(*shape)
    plan = planned(m.program(m.exp(m.add(x, 1.0)), updates={p: m.mul(p, x)}))
    assert not plan.dispatches and [v.shape for v in plan.outputs] == [shape]


def test_host_numbers_of_a_map_share_a_binding():
    m = Maker()
    numbers = m.trace.host(lambda: (0.1, 0.2, 0.3))
    x = m.arg(6, 7)
    for n in numbers:
        x = m.add(m.mul(x, n), m.arg(6, 7))
    program = m.program(x)
    assert len(cut(program)) == 1
    assert [len(d.slots) for d in planned(program).dispatches] == [6]  # four arguments, the numbers, out
