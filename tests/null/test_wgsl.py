"""The reader of WGSL declarations, and the checks that are written into texts: as texts, without a device."""

from __future__ import annotations

import numpy as np
import pytest

from wgpu_nn.wgsl import orders, read, shuffled, watched

TEXT = """/* outer /* nested */ var<storage> gone: array<f32>; */
enable f16;
override WG: u32 = 64u; // override GONE: u32;
@id(3) override K = 2;
const N = 4 * 2u;
alias V = vec4f;
struct In { @builtin(global_invocation_id) gid: vec3<u32>, @builtin(workgroup_id) w: vec3u, };
struct S { n: u32, @align(16) rows: array<array<f32, N>, >, }
@binding(1) /* the order is free */ @group(0x0) var<storage,read_write> out: array<V>;
@group(N - 8) @binding(0) var<storage> a: S;
@group(1) @binding(2) var<uniform> sizes: vec4<u32>;
@group(1) @binding(3) var picture: texture_2d<f32>;
var<workgroup> tile: array<f32, (N > 3u)>;

fn other(out: f32) -> f32 { let tile = out; return tile; }

@workgroup_size(WG, N / 2)
@compute
fn main(in: In, @builtin(num_workgroups) ng: vec3u) {
    let i = in.gid.x;
    if (i > a.n) { return; }
    out[i].x = a.rows[i][i + 1] + 2.0;
    out[a.n] += V(f32(arrayLength(&out)));
    for (var out = 0; out < 3; out++) { tile[out] = other(1.0); }
    { let a = array(1, 2); let b = a[i % 2]; }
    let p = &a.rows;
}
@compute @workgroup_size(1) fn alone() { out[0] = V(); }
"""


def test_bindings_are_read_whatever_stands_around_them() -> None:
    found = {b.name: (b.group, b.binding, b.space, b.access, b.line) for b in read(TEXT).bindings}
    assert found == {
        "out": (0, 1, "storage", "read_write", 9),
        "a": (0, 0, "storage", "read", 10),
        "sizes": (1, 2, "uniform", "read", 11),
        "picture": (1, 3, "handle", "", 12),
    }


def test_overrides_are_read_with_number_and_default() -> None:
    found = [(o.name, o.id, o.type, o.default) for o in read(TEXT).overrides]
    assert found == [("WG", None, "u32", "64u"), ("K", 3, "", "2")]


def test_entry_points_know_their_size_and_what_they_use() -> None:
    found = read(TEXT)
    assert [(e.name, e.stage, e.workgroup_size) for e in found.entry_points] == [
        ("main", "compute", ("WG", "N / 2", "1")),
        ("alone", "compute", ("1", "1", "1")),
    ]
    assert found.value("WG * (N + 1)", {"WG": 3}) == 27
    assert found.value("-1") is None and found.value("sqrt(2.0)") is None
    assert [b.name for b in found.used("alone")] == ["out"]
    assert found.enabled == ("f16",)


def test_types_are_seen_through_aliases_and_short_names() -> None:
    found = read(TEXT)
    kind = found.type_of("array<array<V, 3>, N>")
    assert kind.count == "N" and kind.element is not None and kind.element.count == "3" and kind.scalar == "f32"
    assert found.nbytes(kind) == 8 * 3 * 16
    assert found.nbytes(found.type_of("array<vec3f, 2>")) == 32
    assert found.nbytes(found.type_of("mat2x3h")) == 16
    assert found.nbytes(found.type_of("atomic<u32>")) == 4
    assert found.nbytes(found.type_of("S")) is None


def test_every_index_of_a_module_variable_is_watched_and_nothing_that_hides_one() -> None:
    found = watched(TEXT, 0, 9)
    assert [(s.text, s.what, s.line) for s in found.sites] == [
        ("out[i]", "write", 22),
        ("a.rows[i]", "read", 22),
        ("a.rows[i][i + 1]", "read", 22),
        ("out[a.n]", "write", 23),
        ("tile[out]", "write", 24),
        ("out[0]", "write", 28),
    ]


def test_checks_move_no_line() -> None:
    for made in (watched(TEXT, 0, 9).code, shuffled(TEXT, 0, 9)):
        for ours, given in zip(made.splitlines(), TEXT.splitlines()):
            assert given.split("(")[0].split("[")[0].strip(" {") in ours


def test_pointers_are_named_as_what_is_not_watched() -> None:
    assert watched(TEXT, 0, 9).unseen == (26,)
    clean = "@group(0) @binding(0) var<storage, read_write> n: array<atomic<u32>>;\n"
    clean += "@compute @workgroup_size(1) fn main() { atomicAdd(&n[2], arrayLength(&n)); }"
    found = watched(clean, 0, 1)
    assert found.unseen == () and [(s.text, s.what) for s in found.sites] == [("n[2]", "access")]


def test_faults_are_told_at_every_end_of_an_entry_point() -> None:
    code = watched(TEXT, 0, 9).code
    assert "if (i > a.n) { { wgpu_nn_tell(in.gid); return; } }" in code
    assert code.count("wgpu_nn_tell(in.gid)") == 2
    assert "fn alone(@builtin(global_invocation_id) wgpu_nn_global_invocation_id: vec3<u32>)" in code


def test_shuffled_groups_have_all_their_numbers_moved_together() -> None:
    code = shuffled(TEXT, 0, 9)
    assert "main(wgpu_nn_raw_in: In" in code
    assert "in.gid = wgpu_nn_global; in.w = wgpu_nn_group;" in code
    assert "vec3<u32>(u32(WG), u32(N / 2), u32(1))" in code


@pytest.mark.parametrize("count", [1, 3, 17])
def test_the_parts_of_an_order_hold_each_group_once(count: int) -> None:
    found = list(orders(count, 3, software=False))
    assert [o.what for o in found] == ["", "backwards", *(f"in the order of permutation {n}" for n in (1, 2))]
    for order in found:
        np.testing.assert_array_equal(np.sort(order.groups), np.arange(count))
        ends = [(first, behind) for _, _, first, behind in order.heads]
        assert [n for first, behind in ends for n in range(first, behind)] == list(range(count))
    assert [o.heads[0][1] for o in found] == [0, 32, 64, 32]
    assert all(o.heads[0][1] == 0 for o in orders(count, 3, software=True))


def test_invocations_may_be_late_to_the_start_and_behind_each_barrier() -> None:
    code = shuffled(TEXT.replace("let p = &a.rows;", "workgroupBarrier(); storageBarrier ( ) ;"), 0, 9)
    assert "workgroupBarrier(); wgpu_nn_pause(); storageBarrier ( ) ; wgpu_nn_pause();" in code
    assert code.count("wgpu_nn_pause();") == 4  # and where the two entry points begin


def test_invocations_keep_their_order_where_subgroups_show_it() -> None:
    text = "@compute @workgroup_size(8) fn main(@builtin(local_invocation_index) i: u32) { _ = subgroupAdd(i); }"
    assert "wgpu_nn_order[0] != 0u" not in shuffled(text, 0, 0)
    assert "wgpu_nn_order[0] != 0u" in shuffled(text.replace("subgroupAdd", "f"), 0, 0)
