// One workgroup computes rows of a softmax or log-softmax that LANES invocations each hold in registers: every element is
// read once and written once.
// needs: WORKGROUP, LANES, HELD, LOG, rows, fetch, outside, put

var<workgroup> shared_value: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let row = (group.x + group.y * groups.x) * (WORKGROUP / LANES) + local / LANES;
    let lane = local % LANES;
    let v = hold(min(row, rows() - 1u), lane);
    let top = lanes_max(local, held_max(v));
    let e = held_exp(v, top);
    let total = lanes_sum(local, held_sum(e));
    if (row >= rows()) {
        return;
    }
    if (LOG) {
        // Less the maximum first: the sum of both may be rounded far from the difference.
        held_put(row, lane, held_minus(held_minus(v, top), log(total)));
    } else {
        held_put(row, lane, held_blend(1.0 / total, e, 0.0, Held(), 0.0));
    }
}
