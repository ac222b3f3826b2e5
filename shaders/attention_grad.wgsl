// One invocation computes a gradient of attention for 4 rows, queries or keys: it walks the columns, keys or queries, by fours,
// makes their weights anew from the log-sum-exp of the queries, and sums weights or, with SCORES, cotangents of scores times z.
// It has no workgroup memory: the variant for software adapters.
// needs: WORKGROUP, hidden, DEPTH_QUADS, VALUE_QUADS, WIDTH_QUADS, SCORES, BY_ROW, items, blocks, row_block, members, query_head, rows, columns,
// column_begin, column_end, inside, scale, score, mask_start, x_start, x_at, y_start, y_at, u_start, u_at, w_start, w_at, z_start, z_at,
// lse_at, delta_at, store

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
    let item = i / blocks();
    let first = row_block(i % blocks()) * 4u;
    let edge = rows() - 1u;
    let r1 = min(first + 1u, edge);
    let r2 = min(first + 2u, edge);
    let r3 = min(first + 3u, edge);
    let own = query_head(item, 0u);
    let x = x_start(own);
    let u = u_start(own);
    let last = columns() - 1u;
    // Mesa unrolls loops whose length it knows, and compiles for seconds.
    let depth = hidden(DEPTH_QUADS);
    let width = hidden(WIDTH_QUADS);
    let values = hidden(VALUE_QUADS);
    var lse = vec4f();
    var delta = vec4f();
    if (BY_ROW) {
        lse = finite_shift(vec4f(lse_at(own, first), lse_at(own, r1), lse_at(own, r2), lse_at(own, r3)));
        delta = vec4f(delta_at(own, first), delta_at(own, r1), delta_at(own, r2), delta_at(own, r3));
    }
    var sums0: array<vec4f, WIDTH_QUADS>;
    var sums1: array<vec4f, WIDTH_QUADS>;
    var sums2: array<vec4f, WIDTH_QUADS>;
    var sums3: array<vec4f, WIDTH_QUADS>;
    let end = column_end(first);
    for (var member = 0u; member < members(); member++) {
        let head = query_head(item, member);
        let y = y_start(head);
        let w = w_start(head);
        let z = z_start(head);
        let mask = mask_start(head);
        for (var c0 = column_begin(first); c0 < end; c0 += 4u) {
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
            var lses = vec4f();
            if (!BY_ROW) {
                lses = finite_shift(vec4f(lse_at(head, c0), lse_at(head, c1), lse_at(head, c2), lse_at(head, c3)));
            }
            var p0 = exp_weights(s0 - select(vec4f(lses.x), lse, BY_ROW));
            var p1 = exp_weights(s1 - select(vec4f(lses.y), lse, BY_ROW));
            var p2 = exp_weights(s2 - select(vec4f(lses.z), lse, BY_ROW));
            var p3 = exp_weights(s3 - select(vec4f(lses.w), lse, BY_ROW));
            if (SCORES) {
                var d0 = vec4f(); var d1 = vec4f(); var d2 = vec4f(); var d3 = vec4f();
                for (var k = 0u; k < values; k++) {
                    let u0 = u_at(u, first, k); let u1 = u_at(u, r1, k); let u2 = u_at(u, r2, k); let u3 = u_at(u, r3, k);
                    let w0 = w_at(w, c0, k); d0 += vec4f(dot(u0, w0), dot(u1, w0), dot(u2, w0), dot(u3, w0));
                    let w1 = w_at(w, c1, k); d1 += vec4f(dot(u0, w1), dot(u1, w1), dot(u2, w1), dot(u3, w1));
                    let w2 = w_at(w, c2, k); d2 += vec4f(dot(u0, w2), dot(u1, w2), dot(u2, w2), dot(u3, w2));
                    let w3 = w_at(w, c3, k); d3 += vec4f(dot(u0, w3), dot(u1, w3), dot(u2, w3), dot(u3, w3));
                }
                var deltas = vec4f();
                if (!BY_ROW) {
                    deltas = vec4f(delta_at(head, c0), delta_at(head, c1), delta_at(head, c2), delta_at(head, c3));
                }
                p0 *= (d0 - select(vec4f(deltas.x), delta, BY_ROW)) * scale();
                p1 *= (d1 - select(vec4f(deltas.y), delta, BY_ROW)) * scale();
                p2 *= (d2 - select(vec4f(deltas.z), delta, BY_ROW)) * scale();
                p3 *= (d3 - select(vec4f(deltas.w), delta, BY_ROW)) * scale();
            }
            for (var k = 0u; k < width; k++) {
                let z0 = z_at(z, c0, k); let z1 = z_at(z, c1, k); let z2 = z_at(z, c2, k); let z3 = z_at(z, c3, k);
                    sums0[k] += (z0 * p0.x + z1 * p1.x) + (z2 * p2.x + z3 * p3.x);
                sums1[k] += (z0 * p0.y + z1 * p1.y) + (z2 * p2.y + z3 * p3.y);
                sums2[k] += (z0 * p0.z + z1 * p1.z) + (z2 * p2.z + z3 * p3.z);
                sums3[k] += (z0 * p0.w + z1 * p1.w) + (z2 * p2.w + z3 * p3.w);
            }
        }
    }
    for (var r = 0u; r < 4u && first + r < rows(); r++) {
        for (var k = 0u; k < width; k++) {
            store(item, first + r, 4u * k, one_of_four(r, sums0[k], sums1[k], sums2[k], sums3[k]));
        }
    }
}
