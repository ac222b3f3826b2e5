"""The faults that are planted in WGSL bodies, and those of them that are said to change nothing."""

from __future__ import annotations

from tests.equivalent_mutants import EQUIVALENT
from tests.mutants import mutants
from wgpu_nn.kernels.source import folder


def test_what_is_said_to_change_nothing_is_a_fault_of_today_with_a_reason() -> None:
    for file, reasons in EQUIVALENT.items():
        text = (folder() / file).read_text(encoding="utf-8")
        lines = [line for found in reasons.values() for line in found]
        assert len(set(lines)) == len(lines) and all(reasons)
        assert set(lines) <= {m.shown(text) for m in mutants(file, text)}, file


def test_faults_are_single_tokens_outside_of_types_comments_and_attributes() -> None:
    text = "@group(0) @binding(1) var<storage> x: array<u32, 4>; // 3 < 4\nfn f(a: u32) -> f32 { return -0.5 * f32(a + 1u); }\n"
    assert [m.shown(text) for m in mutants("a.wgsl", text)] == [
        "fn f(a: u32) -> f32 { return 0.5 * f32(a + 1u); }",
        "fn f(a: u32) -> f32 { return -(2.0 * 0.5) * f32(a + 1u); }",
        "fn f(a: u32) -> f32 { return -0.5 / f32(a + 1u); }",
        "fn f(a: u32) -> f32 { return -0.5 * f32(a - 1u); }",
        "fn f(a: u32) -> f32 { return -0.5 * f32(a + 0u); }",
        "fn f(a: u32) -> f32 { return -0.5 * f32(a + 2u); }",
    ]
