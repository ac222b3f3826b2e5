// One invocation computes the attention of 4 queries: it walks the keys by fours, with a running maximum and sum for each row,
// so that no score is stored (Milakov and Gimelshein 2018; Dao 2023). It has no workgroup memory: the variant for software
// adapters. Vectors of scores hold the 4 queries, those along features 4 features.
// needs: WORKGROUP, hidden, DEPTH_QUADS, WIDTH_QUADS, items, blocks, row_block, rows, columns, column_end, inside, scale, score, mask_start,
// x_start, x_at, y_start, y_at, z_start, z_at, store, store_lse

const APART = 1u;  // rows between the lanes of a vector

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * WORKGROUP + local;
    if (i >= items()) {
        return;
    }
    let head = i / blocks();
    let first = row_block(i % blocks()) * 4u;
    let edge = rows() - 1u;
    let r1 = min(first + 1u, edge);
    let r2 = min(first + 2u, edge);
    let r3 = min(first + 3u, edge);
    let x = x_start(head);
    let y = y_start(head);
    let z = z_start(head);
    let mask = mask_start(head);
    let last = columns() - 1u;
    // Mesa unrolls loops whose length it knows, and compiles for seconds.
    let depth = hidden(DEPTH_QUADS);
    let width = hidden(WIDTH_QUADS);
    var top = vec4f(-infinity());
    var total = vec4f();
    var sums0: array<vec4f, WIDTH_QUADS>;
    var sums1: array<vec4f, WIDTH_QUADS>;
    var sums2: array<vec4f, WIDTH_QUADS>;
    var sums3: array<vec4f, WIDTH_QUADS>;
    let end = column_end(first);
    for (var c0 = 0u; c0 < end; c0 += 4u) {
        let c1 = min(c0 + 1u, last);
        let c2 = min(c0 + 2u, last);
        let c3 = min(c0 + 3u, last);
        var s0 = vec4f(); var s1 = vec4f(); var s2 = vec4f(); var s3 = vec4f();
        for (var k = 0u; k < depth; k++) {
            let x0 = x_at(x, first, k); let x1 = x_at(x, r1, k); let x2 = x_at(x, r2, k); let x3 = x_at(x, r3, k);
            let y0 = y_at(y, c0, k); s0 += vec4f(dot(x0, y0), dot(x1, y0), dot(x2, y0), dot(x3, y0));
            let y1 = y_at(y, c1, k); s1 += vec4f(dot(x0, y1), dot(x1, y1), dot(x2, y1), dot(x3, y1));
            let y2 = y_at(y, c2, k); s2 += vec4f(dot(x0, y2), dot(x1, y2), dot(x2, y2), dot(x3, y2));
            let y3 = y_at(y, c3, k); s3 += vec4f(dot(x0, y3), dot(x1, y3), dot(x2, y3), dot(x3, y3));
        }
        if (inside(first, c0)) {
            s0 *= scale(); s1 *= scale(); s2 *= scale(); s3 *= scale();
        } else {
            s0 = scores(mask, first, c0, s0);
            s1 = scores(mask, first, c0 + 1u, s1);
            s2 = scores(mask, first, c0 + 2u, s2);
            s3 = scores(mask, first, c0 + 3u, s3);
        }
        let raised = max(top, max(max(s0, s1), max(s2, s3)));
        let shift = finite_shift(raised);
        let decay = exp_weights(top - shift);
        top = raised;
        let p0 = exp_weights(s0 - shift);
        let p1 = exp_weights(s1 - shift);
        let p2 = exp_weights(s2 - shift);
        let p3 = exp_weights(s3 - shift);
        total = total * decay + (p0 + p1) + (p2 + p3);
        for (var k = 0u; k < width; k++) {
            let z0 = z_at(z, c0, k); let z1 = z_at(z, c1, k); let z2 = z_at(z, c2, k); let z3 = z_at(z, c3, k);
            sums0[k] = sums0[k] * decay.x + (z0 * p0.x + z1 * p1.x) + (z2 * p2.x + z3 * p3.x);
            sums1[k] = sums1[k] * decay.y + (z0 * p0.y + z1 * p1.y) + (z2 * p2.y + z3 * p3.y);
            sums2[k] = sums2[k] * decay.z + (z0 * p0.z + z1 * p1.z) + (z2 * p2.z + z3 * p3.z);
            sums3[k] = sums3[k] * decay.w + (z0 * p0.w + z1 * p1.w) + (z2 * p2.w + z3 * p3.w);
        }
    }
    for (var r = 0u; r < 4u && first + r < rows(); r++) {
        // A row that attends to nothing has no sum: its result is 0, and the log of its sum -inf.
        let none = total[r] == 0.0;
        let share = select(1.0 / total[r], 0.0, none);
        store_lse(head, first + r, select(top[r] + log(total[r]), -infinity(), none));
        for (var k = 0u; k < width; k++) {
            store(head, first + r, 4u * k, one_of_four(r, sums0[k], sums1[k], sums2[k], sums3[k]) * share);
        }
    }
}
