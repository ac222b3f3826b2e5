// One workgroup computes a gradient of attention for 64 rows, queries or keys: it walks the columns, keys or queries, in blocks of
// 64 through workgroup memory, makes their weights anew from the log-sum-exp of the queries, and sums weights or, with SCORES,
// cotangents of scores times z. Each of 16 x 8 invocations has 8 rows x 4 columns, then 8 rows x 4 features of the result, or x 8
// where WIDE is 2. Group n of a block is its rows n, n + 16, n + 32 and n + 48, the lanes of a vector.
// needs: DEPTH, VALUES, CHUNK, WIDE, PARTS, SCORES, BY_ROW, items, blocks, row_block, members, query_head, rows, column_begin,
// column_end, inside, scale, score, mask_start, x_start, x_load, y_start, y_load, u_start, u_load, w_start, w_load, z_start, z_load,
// lse_at, delta_at, store

const APART = 16u;  // rows between the lanes of a vector
const SIDE = 16u;
const PITCH = SIDE + 1u;  // one vector more than a step has, so that steps start in other banks
const TILE = CHUNK * PITCH;
const STEPS = CHUNK / SIDE;
const TEAM = 128u;
const LOADS = CHUNK * SIDE / TEAM;  // a known number, so that all loads of a step are under way at once
var<workgroup> tile_x: array<vec4f, TILE>;
var<workgroup> tile_y: array<vec4f, TILE * WIDE>;
var<workgroup> tile_p: array<vec4f, TILE>;

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
    let first = row_block(i / PARTS % blocks()) * 64u;
    let left = i % PARTS * WIDE * 64u;
    let m = local % SIDE;
    let n = local / SIDE;
    let row = first + n;
    let own = query_head(item, 0u);
    let x = x_start(own);
    let u = u_start(own);
    // a and b: the groups n and n + 8 of rows; c and d: the same for the second block of features.
    var a0 = vec4f(); var a1 = vec4f(); var a2 = vec4f(); var a3 = vec4f();
    var b0 = vec4f(); var b1 = vec4f(); var b2 = vec4f(); var b3 = vec4f();
    var c0 = vec4f(); var c1 = vec4f(); var c2 = vec4f(); var c3 = vec4f();
    var d0 = vec4f(); var d1 = vec4f(); var d2 = vec4f(); var d3 = vec4f();
    var lse_a = vec4f();
    var lse_b = vec4f();
    var delta_a = vec4f();
    var delta_b = vec4f();
    if (BY_ROW) {
        lse_a = lses_of(own, row, APART);
        lse_b = lses_of(own, row + 8u, APART);
        delta_a = deltas_of(own, row, APART);
        delta_b = deltas_of(own, row + 8u, APART);
    }
    let end = column_end(first);
    for (var member = 0u; member < members(); member++) {
        let head = query_head(item, member);
        let y = y_start(head);
        let w = w_start(head);
        let z = z_start(head);
        let mask = mask_start(head);
        for (var column = column_begin(first); column < end; column += 64u) {
            var s0 = vec4f(); var s1 = vec4f(); var s2 = vec4f(); var s3 = vec4f();
            var t0 = vec4f(); var t1 = vec4f(); var t2 = vec4f(); var t3 = vec4f();
            for (var k = 0u; k < DEPTH; k += CHUNK) {
                for (var t = 0u; t < LOADS; t++) {
                    let j = t * TEAM + local;
                    let to = j % CHUNK * PITCH + j / CHUNK;
                    tile_x[to] = x_load(x, first + j / CHUNK, k + j % CHUNK);
                    tile_y[to] = y_load(y, column + j / CHUNK, k + j % CHUNK);
                }
                workgroupBarrier();
                for (var j = 0u; j < CHUNK; j++) {
                    let va = tile_x[j * PITCH + n];
                    let vb = tile_x[j * PITCH + 8u + n];
                    let other = tile_y[j * PITCH + m];
                    s0 += va * other.x; s1 += va * other.y; s2 += va * other.z; s3 += va * other.w;
                    t0 += vb * other.x; t1 += vb * other.y; t2 += vb * other.z; t3 += vb * other.w;
                }
                workgroupBarrier();
            }
            let at = column + m;
            if (inside(first, column)) {
                s0 *= scale(); s1 *= scale(); s2 *= scale(); s3 *= scale();
                t0 *= scale(); t1 *= scale(); t2 *= scale(); t3 *= scale();
            } else {
                s0 = scores(mask, row, at, s0); t0 = scores(mask, row + 8u, at, t0);
                s1 = scores(mask, row, at + 16u, s1); t1 = scores(mask, row + 8u, at + 16u, t1);
                s2 = scores(mask, row, at + 32u, s2); t2 = scores(mask, row + 8u, at + 32u, t2);
                s3 = scores(mask, row, at + 48u, s3); t3 = scores(mask, row + 8u, at + 48u, t3);
            }
            // Groups of columns have the lanes of groups of rows: a column's number is a lane of these.
            var lse = vec4f();
            if (!BY_ROW) {
                lse = lses_of(head, at, APART);
            }
            s0 = exp_weights(s0 - select(vec4f(lse.x), lse_a, BY_ROW)); t0 = exp_weights(t0 - select(vec4f(lse.x), lse_b, BY_ROW));
            s1 = exp_weights(s1 - select(vec4f(lse.y), lse_a, BY_ROW)); t1 = exp_weights(t1 - select(vec4f(lse.y), lse_b, BY_ROW));
            s2 = exp_weights(s2 - select(vec4f(lse.z), lse_a, BY_ROW)); t2 = exp_weights(t2 - select(vec4f(lse.z), lse_b, BY_ROW));
            s3 = exp_weights(s3 - select(vec4f(lse.w), lse_a, BY_ROW)); t3 = exp_weights(t3 - select(vec4f(lse.w), lse_b, BY_ROW));
            if (SCORES) {
                var e0 = vec4f(); var e1 = vec4f(); var e2 = vec4f(); var e3 = vec4f();
                var f0 = vec4f(); var f1 = vec4f(); var f2 = vec4f(); var f3 = vec4f();
                for (var k = 0u; k < VALUES; k += CHUNK) {
                    for (var t = 0u; t < LOADS; t++) {
                        let j = t * TEAM + local;
                        let to = j % CHUNK * PITCH + j / CHUNK;
                        tile_x[to] = u_load(u, first + j / CHUNK, k + j % CHUNK);
                        tile_y[to] = w_load(w, column + j / CHUNK, k + j % CHUNK);
                    }
                    workgroupBarrier();
                    for (var j = 0u; j < CHUNK; j++) {
                        let va = tile_x[j * PITCH + n];
                        let vb = tile_x[j * PITCH + 8u + n];
                        let other = tile_y[j * PITCH + m];
                        e0 += va * other.x; e1 += va * other.y; e2 += va * other.z; e3 += va * other.w;
                        f0 += vb * other.x; f1 += vb * other.y; f2 += vb * other.z; f3 += vb * other.w;
                    }
                    workgroupBarrier();
                }
                var delta = vec4f();
                if (!BY_ROW) {
                    delta = deltas_of(head, at, APART);
                }
                s0 *= e0 - select(vec4f(delta.x), delta_a, BY_ROW); t0 *= f0 - select(vec4f(delta.x), delta_b, BY_ROW);
                s1 *= e1 - select(vec4f(delta.y), delta_a, BY_ROW); t1 *= f1 - select(vec4f(delta.y), delta_b, BY_ROW);
                s2 *= e2 - select(vec4f(delta.z), delta_a, BY_ROW); t2 *= f2 - select(vec4f(delta.z), delta_b, BY_ROW);
                s3 *= e3 - select(vec4f(delta.w), delta_a, BY_ROW); t3 *= f3 - select(vec4f(delta.w), delta_b, BY_ROW);
            }
            for (var q = 0u; q < 4u; q += STEPS) {
                for (var e = 0u; e < STEPS; e++) {
                    tile_p[(e * SIDE + m) * PITCH + n] = one_of_four(q + e, s0, s1, s2, s3);
                    tile_p[(e * SIDE + m) * PITCH + 8u + n] = one_of_four(q + e, t0, t1, t2, t3);
                }
                for (var t = 0u; t < LOADS * WIDE; t++) {
                    let j = t * TEAM + local;
                    let k = j / (SIDE * WIDE);
                    let wide = j / SIDE % WIDE;
                    tile_y[wide * TILE + k * PITCH + j % SIDE] = z_load(z, column + q * SIDE + k, left + wide * 64u + j % SIDE);
                }
                workgroupBarrier();
                for (var j = 0u; j < CHUNK; j++) {
                    let va = tile_p[j * PITCH + n];
                    let vb = tile_p[j * PITCH + 8u + n];
                    let value = tile_y[j * PITCH + m];
                    a0 += va * value.x; a1 += va * value.y; a2 += va * value.z; a3 += va * value.w;
                    b0 += vb * value.x; b1 += vb * value.y; b2 += vb * value.z; b3 += vb * value.w;
                    if (WIDE > 1u) {
                        let more = tile_y[(WIDE - 1u) * TILE + j * PITCH + m];
                        c0 += va * more.x; c1 += va * more.y; c2 += va * more.z; c3 += va * more.w;
                        d0 += vb * more.x; d1 += vb * more.y; d2 += vb * more.z; d3 += vb * more.w;
                    }
                }
                workgroupBarrier();
            }
        }
    }
    let factor = select(1.0, scale(), SCORES);
    let to = left + m;
    store_lanes(item, row, to, a0 * factor); store_lanes(item, row + 8u, to, b0 * factor);
    store_lanes(item, row, to + 16u, a1 * factor); store_lanes(item, row + 8u, to + 16u, b1 * factor);
    store_lanes(item, row, to + 32u, a2 * factor); store_lanes(item, row + 8u, to + 32u, b2 * factor);
    store_lanes(item, row, to + 48u, a3 * factor); store_lanes(item, row + 8u, to + 48u, b3 * factor);
    if (WIDE > 1u) {
        store_lanes(item, row, to + 64u, c0 * factor); store_lanes(item, row + 8u, to + 64u, d0 * factor);
        store_lanes(item, row, to + 80u, c1 * factor); store_lanes(item, row + 8u, to + 80u, d1 * factor);
        store_lanes(item, row, to + 96u, c2 * factor); store_lanes(item, row + 8u, to + 96u, d2 * factor);
        store_lanes(item, row, to + 112u, c3 * factor); store_lanes(item, row + 8u, to + 112u, d3 * factor);
    }
}
