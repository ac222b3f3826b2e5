// One workgroup normalises rows that LANES invocations each hold in registers: every element is read once and written once.
// needs: WORKGROUP, LANES, HELD, CENTRED, rows, length, epsilon, fetch, outside, put

var<workgroup> shared_value: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let row = (group.x + group.y * groups.x) * (WORKGROUP / LANES) + local / LANES;
    let lane = local % LANES;
    var v = hold(min(row, rows() - 1u), lane);
    if (CENTRED) {
        v = held_less(v, lanes_sum(local, held_sum(v)) / f32(length()), lane);
    }
    let r = inverseSqrt(lanes_sum(local, held_dot(v, v)) / f32(length()) + epsilon());
    if (row < rows()) {
        held_put(row, lane, held_blend(r, v, 0.0, Held(), 0.0));
    }
}
