"""Slices of what was put together from parts: rewritten where the parts are the answer, left alone elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from wgpu_nn import Device, tensor
from wgpu_nn.dtype import F32
from wgpu_nn.graph import Program, Trace, Value, simplify
from wgpu_nn.graph.assembled import assembled
from wgpu_nn.graph.passes import dead_code
from wgpu_nn.ops import DEFAULT_DTYPES, Spec


def ops(program: Program) -> list[str]:
    return [i.op for i in dead_code(assembled(program)).instrs]


class Parts:
    """A trace with zeros of [2, 4] whose rows are replaced by arguments, and slices of its rows."""

    def __init__(self) -> None:
        self.trace = Trace(DEFAULT_DTYPES, lambda handle: handle)
        self.zeros = self.trace.run("full", 0.0, shape=(2, 4), dtype=F32)

    def row(self, ref: Any, k: int) -> Value:
        return self.trace.run("slice", ref, ranges=((k, 1, 1), (0, 1, 4)))

    def put(self, k: int, into: Any = None) -> tuple[Value, Value]:
        given = self.trace.input("arg", Spec((1, 4), F32))
        ranges = ((k, 1, 1), (0, 1, 4))
        return given, self.trace.run("slice_assign", into or self.zeros, given, ranges=ranges)


def test_a_slice_of_an_assigned_region_is_what_was_assigned():
    p = Parts()
    given, whole = p.put(1)
    program = dead_code(assembled(p.trace.program([p.row(whole, 1)], {})))
    assert ops(program) == [] and program.outputs == (given.ref,)


def test_a_slice_beside_an_assigned_region_is_what_lay_there():
    p = Parts()
    given, first = p.put(0)
    _, both = p.put(1, into=first)
    program = dead_code(assembled(p.trace.program([p.row(both, 0)], {})))
    assert program.outputs == (given.ref,)
    p = Parts()
    assert ops(p.trace.program([p.row(p.put(0)[1], 1)], {})) == ["full"]


def test_a_slice_of_a_sum_is_the_sum_of_the_slices():
    p = Parts()
    (_, x), (_, y) = p.put(0), p.put(1)
    added = p.trace.run("add", x, y)
    program = p.trace.program([p.row(added, 0), p.row(added, 1)], {})
    assert sorted(ops(program)) == ["add", "add", "full", "full"]
    assert [i.op for i in simplify(program).instrs] == ["add", "add"]  # of a number: x + 0 turns -0 into 0


def test_regions_that_overlap_in_part_and_other_maps_are_left_alone():
    for ranges in (((0, 1, 2), (0, 1, 4)), ((0, 1, 1), (1, 2, 2))):
        p = Parts()
        part = p.trace.run("slice", p.put(0)[1], ranges=ranges)
        assert ops(p.trace.program([part], {})) == ["full", "slice_assign", "slice"]
    p = Parts()
    added = p.trace.run("add", p.put(0)[1], p.trace.input("arg", Spec((2, 4), F32)))
    assert ops(p.trace.program([p.row(added, 0)], {})) == ["full", "slice_assign", "add", "slice"]
    p = Parts()
    scaled = p.trace.run("mul", p.put(0)[1], 2.0)
    assert ops(p.trace.program([p.row(scaled, 0)], {})) == ["full", "slice_assign", "mul", "slice"]


def test_the_gradient_of_a_variance_and_a_mean_together():
    device = Device("numpy:f64")
    x = tensor(np.random.default_rng(0).standard_normal((3, 5)), device.autodiff()).require_grad()
    var, mean = x.var_mean(1)
    got = (var * 2.0 + mean).sum().backward()[x].numpy()
    plain = x.numpy()
    np.testing.assert_allclose(got, (plain - plain.mean(1, keepdims=True)) + 0.2)
