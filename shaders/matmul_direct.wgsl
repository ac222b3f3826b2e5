// One invocation computes 8 x 8 outputs in registers, without workgroup memory: the variant for software adapters.
// needs: WORKGROUP, rows, inner, batches, per_slice, tiles_x, tiles, a_start, b_start, c_start, a_at, b_at, c_store,
// SUMS, sums_store

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * WORKGROUP + local;
    if (i >= tiles()) {
        return;
    }
    let x = i % tiles_x();
    let above = i / tiles_x();
    let tiles_y = (rows() + 7u) / 8u;
    let y = above % tiles_y;
    let batch = (above / tiles_y) % batches();
    let slice = above / tiles_y / batches();
    let m = y * 8u;
    let n = x * 8u;
    let a = a_start(batch);
    let b = b_start(batch);
    // Rows beyond the edge are read from the last one, and not stored.
    let edge = rows() - 1u;
    let m0 = min(m, edge); let m1 = min(m + 1u, edge); let m2 = min(m + 2u, edge); let m3 = min(m + 3u, edge);
    let m4 = min(m + 4u, edge); let m5 = min(m + 5u, edge); let m6 = min(m + 6u, edge); let m7 = min(m + 7u, edge);
    var l0 = vec4f(); var l1 = vec4f(); var l2 = vec4f(); var l3 = vec4f();
    var l4 = vec4f(); var l5 = vec4f(); var l6 = vec4f(); var l7 = vec4f();
    var r0 = vec4f(); var r1 = vec4f(); var r2 = vec4f(); var r3 = vec4f();
    var r4 = vec4f(); var r5 = vec4f(); var r6 = vec4f(); var r7 = vec4f();
    var s_left = vec4f();
    var s_right = vec4f();
    let last = min((slice + 1u) * per_slice(), inner());
    for (var k = slice * per_slice(); k < last; k++) {
        let left = b_at(b, k, n);
        let right = b_at(b, k, n + 4u);
        if (SUMS) {
            s_left += left;
            s_right += right;
        }
        let v0 = a_at(a, m0, k); l0 += v0 * left; r0 += v0 * right;
        let v1 = a_at(a, m1, k); l1 += v1 * left; r1 += v1 * right;
        let v2 = a_at(a, m2, k); l2 += v2 * left; r2 += v2 * right;
        let v3 = a_at(a, m3, k); l3 += v3 * left; r3 += v3 * right;
        let v4 = a_at(a, m4, k); l4 += v4 * left; r4 += v4 * right;
        let v5 = a_at(a, m5, k); l5 += v5 * left; r5 += v5 * right;
        let v6 = a_at(a, m6, k); l6 += v6 * left; r6 += v6 * right;
        let v7 = a_at(a, m7, k); l7 += v7 * left; r7 += v7 * right;
    }
    if (SUMS && y == 0u) {
        sums_store(n, s_left);
        sums_store(n + 4u, s_right);
    }
    let c = c_start(batch, slice);
    store8(c, m, n, l0, r0); store8(c, m + 1u, n, l1, r1); store8(c, m + 2u, n, l2, r2); store8(c, m + 3u, n, l3, r3);
    store8(c, m + 4u, n, l4, r4); store8(c, m + 5u, n, l5, r5); store8(c, m + 6u, n, l6, r6); store8(c, m + 7u, n, l7, r7);
}

fn store8(c: u32, m: u32, n: u32, left: vec4f, right: vec4f) {
    if (m < rows()) {
        c_store(c, m, n, left);
        c_store(c, m, n + 4u, right);
    }
}
