// One workgroup computes the gradients of normalised rows, LANES invocations each, which hold a row and its cotangent.
// needs: WORKGROUP, LANES, HELD, CENTRED, rows, length, epsilon, fetch, fetch_cotangent, outside, put

var<workgroup> shared_value: array<f32, WORKGROUP>;

fn hold_cotangent(row: u32, lane: u32) -> Held {
    var u = Held();
    u.a = fetch_cotangent(row, lane);
    if (HELD > 1u) {
        u.b = fetch_cotangent(row, lane + LANES);
    }
    if (HELD > 2u) {
        u.c = fetch_cotangent(row, lane + 2u * LANES);
        u.d = fetch_cotangent(row, lane + 3u * LANES);
    }
    if (HELD > 4u) {
        u.e = fetch_cotangent(row, lane + 4u * LANES);
        u.f = fetch_cotangent(row, lane + 5u * LANES);
        u.g = fetch_cotangent(row, lane + 6u * LANES);
        u.h = fetch_cotangent(row, lane + 7u * LANES);
    }
    return u;
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let row = (group.x + group.y * groups.x) * (WORKGROUP / LANES) + local / LANES;
    let lane = local % LANES;
    let n = f32(length());
    var v = hold(min(row, rows() - 1u), lane);
    let u = hold_cotangent(min(row, rows() - 1u), lane);
    var mean = 0.0;
    if (CENTRED) {
        v = held_less(v, lanes_sum(local, held_sum(v)) / n, lane);
        mean = lanes_sum(local, held_sum(u)) / n;
    }
    let r = inverseSqrt(lanes_sum(local, held_dot(v, v)) / n + epsilon());
    // dx = r (u - mean(u) - z mean(u z)) with z = r v
    let along = lanes_sum(local, held_dot(u, v)) / n * r * r;
    if (row < rows()) {
        held_put(row, lane, held_blend(r, u, -r * along, v, -r * mean));
    }
}
