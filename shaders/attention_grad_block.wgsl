// One workgroup computes a gradient of attention for 128 rows, queries or keys: it walks the columns, keys or queries, in blocks of
// 64 through workgroup memory, makes their weights anew from the log-sum-exp of the queries, and sums weights or, with SCORES,
// cotangents of scores times z. Each of 16 x 8 invocations has 8 rows x 8 columns, then 8 rows x 8 of 64 features of the result.
// Group n of the rows is n, n + 32, n + 64 and n + 96, that of the columns n, n + 16, n + 32 and n + 48, the lanes of a vector; an
// invocation has the groups n and n + 16 of rows, m and m + 8 of columns.
// needs: DEPTH_QUADS, VALUE_QUADS, WIDTH_QUADS, PARTS, SCORES, BY_ROW, items, blocks, row_block, members, query_head, rows, columns,
// column_begin, column_end, inside, scale, score, mask_start, x_start, x_at, y_start, y_at, u_start, u_at, w_start, w_at, z_start, z_at,
// lse_at, delta_at, store

const APART = 32u;  // rows between the lanes of a vector
const TEAM = 128u;
const CHUNK = 32u;  // steps of an inner axis in workgroup memory
var<workgroup> tile_x: array<vec4f, CHUNK * 32u>;
var<workgroup> tile_y: array<vec4f, CHUNK * 16u>;

@compute @workgroup_size(TEAM)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = group.x + group.y * groups.x;
    if (i >= items()) {
        return;
    }
    let item = i / PARTS / blocks();
    let first = row_block(i / PARTS % blocks()) * 128u;
    let left = i % PARTS * 16u;  // in quads of features
    let m = local % 8u;
    let n = local / 8u;
    let row = first + n;
    let own = query_head(item, 0u);
    let x = x_start(own);
    let u = u_start(own);
    // a and b: the groups n and n + 16 of rows, each with one feature.
    var a0 = vec4f(); var a1 = vec4f(); var a2 = vec4f(); var a3 = vec4f();
    var a4 = vec4f(); var a5 = vec4f(); var a6 = vec4f(); var a7 = vec4f();
    var b0 = vec4f(); var b1 = vec4f(); var b2 = vec4f(); var b3 = vec4f();
    var b4 = vec4f(); var b5 = vec4f(); var b6 = vec4f(); var b7 = vec4f();
    let end = column_end(first);
    for (var member = 0u; member < members(); member++) {
        let head = query_head(item, member);
        let y = y_start(head);
        let w = w_start(head);
        let z = z_start(head);
        let mask = mask_start(head);
        for (var column = column_begin(first); column < end; column += 64u) {
            // s and t: the groups n and n + 16 of rows, each with one column.
            var s0 = vec4f(); var s1 = vec4f(); var s2 = vec4f(); var s3 = vec4f();
            var s4 = vec4f(); var s5 = vec4f(); var s6 = vec4f(); var s7 = vec4f();
            var t0 = vec4f(); var t1 = vec4f(); var t2 = vec4f(); var t3 = vec4f();
            var t4 = vec4f(); var t5 = vec4f(); var t6 = vec4f(); var t7 = vec4f();
            for (var k = 0u; k < 4u * DEPTH_QUADS; k += CHUNK) {
                let quad = local % 8u;
                let step = k / 4u + quad;
                for (var t = 0u; t < 2u; t++) {
                    let part = t * 16u + local / 8u;
                    let at = first + part;
                    put_rows(part, quad, x_or_zeros(x, at, step), x_or_zeros(x, at + 32u, step),
                        x_or_zeros(x, at + 64u, step), x_or_zeros(x, at + 96u, step));
                }
                let at = column + local / 8u;
                put_columns(local / 8u, quad, y_or_zeros(y, at, step), y_or_zeros(y, at + 16u, step),
                    y_or_zeros(y, at + 32u, step), y_or_zeros(y, at + 48u, step));
                workgroupBarrier();
                for (var j = 0u; j < CHUNK; j++) {
                    let va = tile_x[j * 32u + (n ^ (j / 4u))];
                    let vb = tile_x[j * 32u + 16u + (n ^ (j / 4u))];
                    let c = tile_y[j * 16u + (m ^ (j / 4u))];
                    let d = tile_y[j * 16u + 8u + (m ^ (j / 4u))];
                    s0 += va * c.x; s1 += va * c.y; s2 += va * c.z; s3 += va * c.w;
                    s4 += va * d.x; s5 += va * d.y; s6 += va * d.z; s7 += va * d.w;
                    t0 += vb * c.x; t1 += vb * c.y; t2 += vb * c.z; t3 += vb * c.w;
                    t4 += vb * d.x; t5 += vb * d.y; t6 += vb * d.z; t7 += vb * d.w;
                }
                workgroupBarrier();
            }
            let at = column + m;
            if (inside(first, column)) {
                s0 *= scale(); s1 *= scale(); s2 *= scale(); s3 *= scale(); s4 *= scale(); s5 *= scale(); s6 *= scale(); s7 *= scale();
                t0 *= scale(); t1 *= scale(); t2 *= scale(); t3 *= scale(); t4 *= scale(); t5 *= scale(); t6 *= scale(); t7 *= scale();
            } else {
                s0 = scores(mask, row, at, s0); t0 = scores(mask, row + 16u, at, t0);
                s1 = scores(mask, row, at + 16u, s1); t1 = scores(mask, row + 16u, at + 16u, t1);
                s2 = scores(mask, row, at + 32u, s2); t2 = scores(mask, row + 16u, at + 32u, t2);
                s3 = scores(mask, row, at + 48u, s3); t3 = scores(mask, row + 16u, at + 48u, t3);
                s4 = scores(mask, row, at + 8u, s4); t4 = scores(mask, row + 16u, at + 8u, t4);
                s5 = scores(mask, row, at + 24u, s5); t5 = scores(mask, row + 16u, at + 24u, t5);
                s6 = scores(mask, row, at + 40u, s6); t6 = scores(mask, row + 16u, at + 40u, t6);
                s7 = scores(mask, row, at + 56u, s7); t7 = scores(mask, row + 16u, at + 56u, t7);
            }
            // A column's number is a lane of the columns' groups.
            if (BY_ROW) {
                let a = lses_of(own, row, APART);
                let b = lses_of(own, row + 16u, APART);
                s0 = exp_weights(s0 - a); t0 = exp_weights(t0 - b);
                s1 = exp_weights(s1 - a); t1 = exp_weights(t1 - b);
                s2 = exp_weights(s2 - a); t2 = exp_weights(t2 - b);
                s3 = exp_weights(s3 - a); t3 = exp_weights(t3 - b);
                s4 = exp_weights(s4 - a); t4 = exp_weights(t4 - b);
                s5 = exp_weights(s5 - a); t5 = exp_weights(t5 - b);
                s6 = exp_weights(s6 - a); t6 = exp_weights(t6 - b);
                s7 = exp_weights(s7 - a); t7 = exp_weights(t7 - b);
            } else {
                let c = lses_of(head, at, 16u);
                let d = lses_of(head, at + 8u, 16u);
                s0 = exp_weights(s0 - vec4f(c.x)); t0 = exp_weights(t0 - vec4f(c.x));
                s1 = exp_weights(s1 - vec4f(c.y)); t1 = exp_weights(t1 - vec4f(c.y));
                s2 = exp_weights(s2 - vec4f(c.z)); t2 = exp_weights(t2 - vec4f(c.z));
                s3 = exp_weights(s3 - vec4f(c.w)); t3 = exp_weights(t3 - vec4f(c.w));
                s4 = exp_weights(s4 - vec4f(d.x)); t4 = exp_weights(t4 - vec4f(d.x));
                s5 = exp_weights(s5 - vec4f(d.y)); t5 = exp_weights(t5 - vec4f(d.y));
                s6 = exp_weights(s6 - vec4f(d.z)); t6 = exp_weights(t6 - vec4f(d.z));
                s7 = exp_weights(s7 - vec4f(d.w)); t7 = exp_weights(t7 - vec4f(d.w));
            }
            if (SCORES) {
                var e0 = vec4f(); var e1 = vec4f(); var e2 = vec4f(); var e3 = vec4f();
                var e4 = vec4f(); var e5 = vec4f(); var e6 = vec4f(); var e7 = vec4f();
                var f0 = vec4f(); var f1 = vec4f(); var f2 = vec4f(); var f3 = vec4f();
                var f4 = vec4f(); var f5 = vec4f(); var f6 = vec4f(); var f7 = vec4f();
                for (var k = 0u; k < 4u * VALUE_QUADS; k += CHUNK) {
                    let quad = local % 8u;
                    let step = k / 4u + quad;
                    for (var t = 0u; t < 2u; t++) {
                        let part = t * 16u + local / 8u;
                        let at = first + part;
                        put_rows(part, quad, u_or_zeros(u, at, step), u_or_zeros(u, at + 32u, step),
                            u_or_zeros(u, at + 64u, step), u_or_zeros(u, at + 96u, step));
                    }
                    let at = column + local / 8u;
                    put_columns(local / 8u, quad, w_or_zeros(w, at, step), w_or_zeros(w, at + 16u, step),
                        w_or_zeros(w, at + 32u, step), w_or_zeros(w, at + 48u, step));
                    workgroupBarrier();
                    for (var j = 0u; j < CHUNK; j++) {
                        let va = tile_x[j * 32u + (n ^ (j / 4u))];
                        let vb = tile_x[j * 32u + 16u + (n ^ (j / 4u))];
                        let c = tile_y[j * 16u + (m ^ (j / 4u))];
                        let d = tile_y[j * 16u + 8u + (m ^ (j / 4u))];
                        e0 += va * c.x; e1 += va * c.y; e2 += va * c.z; e3 += va * c.w;
                        e4 += va * d.x; e5 += va * d.y; e6 += va * d.z; e7 += va * d.w;
                        f0 += vb * c.x; f1 += vb * c.y; f2 += vb * c.z; f3 += vb * c.w;
                        f4 += vb * d.x; f5 += vb * d.y; f6 += vb * d.z; f7 += vb * d.w;
                    }
                    workgroupBarrier();
                }
                if (BY_ROW) {
                    let a = deltas_of(own, row, APART);
                    let b = deltas_of(own, row + 16u, APART);
                    s0 *= e0 - a; t0 *= f0 - b;
                    s1 *= e1 - a; t1 *= f1 - b;
                    s2 *= e2 - a; t2 *= f2 - b;
                    s3 *= e3 - a; t3 *= f3 - b;
                    s4 *= e4 - a; t4 *= f4 - b;
                    s5 *= e5 - a; t5 *= f5 - b;
                    s6 *= e6 - a; t6 *= f6 - b;
                    s7 *= e7 - a; t7 *= f7 - b;
                } else {
                    let c = deltas_of(head, at, 16u);
                    let d = deltas_of(head, at + 8u, 16u);
                    s0 *= e0 - c.x; t0 *= f0 - c.x;
                    s1 *= e1 - c.y; t1 *= f1 - c.y;
                    s2 *= e2 - c.z; t2 *= f2 - c.z;
                    s3 *= e3 - c.w; t3 *= f3 - c.w;
                    s4 *= e4 - d.x; t4 *= f4 - d.x;
                    s5 *= e5 - d.y; t5 *= f5 - d.y;
                    s6 *= e6 - d.z; t6 *= f6 - d.z;
                    s7 *= e7 - d.w; t7 *= f7 - d.w;
                }
            }
            // Two halves of the columns: those of the lanes x and y, then those of z and w.
            for (var half = 0u; half < 2u; half++) {
                let to = m * 32u + (n ^ m);
                let second = half == 1u;
                tile_x[to] = select(s0, s2, second);
                tile_x[to + 16u] = select(t0, t2, second);
                tile_x[to + 256u] = select(s4, s6, second);
                tile_x[to + 272u] = select(t4, t6, second);
                tile_x[to + 512u] = select(s1, s3, second);
                tile_x[to + 528u] = select(t1, t3, second);
                tile_x[to + 768u] = select(s5, s7, second);
                tile_x[to + 784u] = select(t5, t7, second);
                for (var t = 0u; t < 4u; t++) {
                    let key = column + half * CHUNK + t * 8u + local / 16u;
                    var values = vec4f();
                    if (key < columns() && left + local % 16u < WIDTH_QUADS) {
                        values = z_at(z, key, left + local % 16u);
                    }
                    tile_y[t * TEAM + local] = values;
                }
                workgroupBarrier();
                for (var j = 0u; j < CHUNK; j++) {
                    let va = tile_x[j * 32u + (n ^ (j % 8u))];
                    let vb = tile_x[j * 32u + 16u + (n ^ (j % 8u))];
                    let c = tile_y[j * 16u + m];
                    let d = tile_y[j * 16u + 8u + m];
                    a0 += va * c.x; a1 += va * c.y; a2 += va * c.z; a3 += va * c.w;
                    a4 += va * d.x; a5 += va * d.y; a6 += va * d.z; a7 += va * d.w;
                    b0 += vb * c.x; b1 += vb * c.y; b2 += vb * c.z; b3 += vb * c.w;
                    b4 += vb * d.x; b5 += vb * d.y; b6 += vb * d.z; b7 += vb * d.w;
                }
                workgroupBarrier();
            }
        }
    }
    let factor = select(1.0, scale(), SCORES);
    let to = 4u * (left + m);
    store_rows(item, row, to, a0 * factor, a1 * factor, a2 * factor, a3 * factor);
    store_rows(item, row + 16u, to, b0 * factor, b1 * factor, b2 * factor, b3 * factor);
    store_rows(item, row, to + 32u, a4 * factor, a5 * factor, a6 * factor, a7 * factor);
    store_rows(item, row + 16u, to + 32u, b4 * factor, b5 * factor, b6 * factor, b7 * factor);
}

fn u_or_zeros(start: u32, row: u32, step: u32) -> vec4f {
    if (row >= rows() || step >= VALUE_QUADS) { return vec4f(); }
    return u_at(start, row, step);
}

fn w_or_zeros(start: u32, row: u32, step: u32) -> vec4f {
    if (row >= columns() || step >= VALUE_QUADS) { return vec4f(); }
    return w_at(start, row, step);
}
