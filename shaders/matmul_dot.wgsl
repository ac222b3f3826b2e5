// One invocation computes 8 x 4 outputs as dot products along the inner axis, four elements at a time, without
// workgroup memory: the variant for software adapters where both operands are contiguous along the inner axis.
// needs: WORKGROUP, rows, columns, inner, batches, per_slice, tiles_x, tiles, a_start, b_start, c_start, a_at, b_at, c_store,
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
    let n = x * 4u;
    let a = a_start(batch);
    let b = b_start(batch);
    let edge = rows() - 1u;
    let m0 = min(m, edge); let m1 = min(m + 1u, edge); let m2 = min(m + 2u, edge); let m3 = min(m + 3u, edge);
    let m4 = min(m + 4u, edge); let m5 = min(m + 5u, edge); let m6 = min(m + 6u, edge); let m7 = min(m + 7u, edge);
    let side = columns() - 1u;
    let n0 = min(n, side); let n1 = min(n + 1u, side); let n2 = min(n + 2u, side); let n3 = min(n + 3u, side);
    var c0 = vec4f(); var c1 = vec4f(); var c2 = vec4f(); var c3 = vec4f();
    var c4 = vec4f(); var c5 = vec4f(); var c6 = vec4f(); var c7 = vec4f();
    var sums = vec4f();
    let last = min((slice + 1u) * per_slice(), inner()) / 4u;
    for (var k = slice * per_slice() / 4u; k < last; k++) {
        let b0 = b_at(b, k, n0); let b1 = b_at(b, k, n1); let b2 = b_at(b, k, n2); let b3 = b_at(b, k, n3);
        if (SUMS) {
            sums += vec4f(dot(b0, vec4f(1.0)), dot(b1, vec4f(1.0)), dot(b2, vec4f(1.0)), dot(b3, vec4f(1.0)));
        }
        let a0 = a_at(a, m0, k); c0 += vec4f(dot(a0, b0), dot(a0, b1), dot(a0, b2), dot(a0, b3));
        let a1 = a_at(a, m1, k); c1 += vec4f(dot(a1, b0), dot(a1, b1), dot(a1, b2), dot(a1, b3));
        let a2 = a_at(a, m2, k); c2 += vec4f(dot(a2, b0), dot(a2, b1), dot(a2, b2), dot(a2, b3));
        let a3 = a_at(a, m3, k); c3 += vec4f(dot(a3, b0), dot(a3, b1), dot(a3, b2), dot(a3, b3));
        let a4 = a_at(a, m4, k); c4 += vec4f(dot(a4, b0), dot(a4, b1), dot(a4, b2), dot(a4, b3));
        let a5 = a_at(a, m5, k); c5 += vec4f(dot(a5, b0), dot(a5, b1), dot(a5, b2), dot(a5, b3));
        let a6 = a_at(a, m6, k); c6 += vec4f(dot(a6, b0), dot(a6, b1), dot(a6, b2), dot(a6, b3));
        let a7 = a_at(a, m7, k); c7 += vec4f(dot(a7, b0), dot(a7, b1), dot(a7, b2), dot(a7, b3));
    }
    if (SUMS && y == 0u) {
        sums_store(n, sums);
    }
    let c = c_start(batch, slice);
    store4(c, m, n, c0); store4(c, m + 1u, n, c1); store4(c, m + 2u, n, c2); store4(c, m + 3u, n, c3);
    store4(c, m + 4u, n, c4); store4(c, m + 5u, n, c5); store4(c, m + 6u, n, c6); store4(c, m + 7u, n, c7);
}

fn store4(c: u32, m: u32, n: u32, values: vec4f) {
    if (m < rows()) {
        c_store(c, m, n, values);
    }
}
