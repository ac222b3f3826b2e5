// One workgroup computes the attention of 64 queries: it walks the keys in blocks of 64 through workgroup memory, with a running
// maximum and sum for each row, so that no score is stored (Milakov and Gimelshein 2018; Dao 2023). Each of 16 x 8 invocations
// has 8 queries x 4 keys of the scores, then 8 queries x 4 features of the result, or x 8 where WIDE is 2. Group n of a block is
// its rows n, n + 16, n + 32 and n + 48, the lanes of a vector; so neighbours read neighbours, whatever the alignment.
// needs: DEPTH, CHUNK, WIDE, PARTS, items, blocks, row_block, rows, column_end, inside, scale, score, mask_start, x_start, x_load,
// y_start, y_load, z_start, z_load, store, store_lse

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
    let head = i / PARTS / blocks();
    let first = row_block(i / PARTS % blocks()) * 64u;
    let left = i % PARTS * WIDE * 64u;
    let m = local % SIDE;
    let n = local / SIDE;
    let x = x_start(head);
    let y = y_start(head);
    let z = z_start(head);
    let mask = mask_start(head);
    // a and b: the groups n and n + 8 of rows; c and d: the same for the second block of features.
    var a0 = vec4f(); var a1 = vec4f(); var a2 = vec4f(); var a3 = vec4f();
    var b0 = vec4f(); var b1 = vec4f(); var b2 = vec4f(); var b3 = vec4f();
    var c0 = vec4f(); var c1 = vec4f(); var c2 = vec4f(); var c3 = vec4f();
    var d0 = vec4f(); var d1 = vec4f(); var d2 = vec4f(); var d3 = vec4f();
    var top_a = vec4f(-infinity());
    var top_b = vec4f(-infinity());
    var total_a = vec4f();
    var total_b = vec4f();
    let end = column_end(first);
    for (var column = 0u; column < end; column += 64u) {
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
                let key = tile_y[j * PITCH + m];
                s0 += va * key.x; s1 += va * key.y; s2 += va * key.z; s3 += va * key.w;
                t0 += vb * key.x; t1 += vb * key.y; t2 += vb * key.z; t3 += vb * key.w;
            }
            workgroupBarrier();
        }
        if (inside(first, column)) {
            s0 *= scale(); s1 *= scale(); s2 *= scale(); s3 *= scale();
            t0 *= scale(); t1 *= scale(); t2 *= scale(); t3 *= scale();
        } else {
            let row = first + n;
            s0 = scores(mask, row, column + m, s0); t0 = scores(mask, row + 8u, column + m, t0);
            s1 = scores(mask, row, column + m + 16u, s1); t1 = scores(mask, row + 8u, column + m + 16u, t1);
            s2 = scores(mask, row, column + m + 32u, s2); t2 = scores(mask, row + 8u, column + m + 32u, t2);
            s3 = scores(mask, row, column + m + 48u, s3); t3 = scores(mask, row + 8u, column + m + 48u, t3);
        }
        // The maximum of each row over the 16 invocations that share it.
        tile_p[m * PITCH + n] = max(max(s0, s1), max(s2, s3));
        tile_p[m * PITCH + 8u + n] = max(max(t0, t1), max(t2, t3));
        workgroupBarrier();
        var raised_a = top_a;
        var raised_b = top_b;
        for (var j = 0u; j < SIDE; j++) {
            raised_a = max(raised_a, tile_p[j * PITCH + n]);
            raised_b = max(raised_b, tile_p[j * PITCH + 8u + n]);
        }
        workgroupBarrier();
        let shift_a = finite_shift(raised_a);
        let shift_b = finite_shift(raised_b);
        let decay_a = exp_weights(top_a - shift_a);
        let decay_b = exp_weights(top_b - shift_b);
        top_a = raised_a;
        top_b = raised_b;
        s0 = exp_weights(s0 - shift_a); s1 = exp_weights(s1 - shift_a); s2 = exp_weights(s2 - shift_a); s3 = exp_weights(s3 - shift_a);
        t0 = exp_weights(t0 - shift_b); t1 = exp_weights(t1 - shift_b); t2 = exp_weights(t2 - shift_b); t3 = exp_weights(t3 - shift_b);
        total_a = total_a * decay_a + (s0 + s1) + (s2 + s3);
        total_b = total_b * decay_b + (t0 + t1) + (t2 + t3);
        a0 *= decay_a; a1 *= decay_a; a2 *= decay_a; a3 *= decay_a;
        b0 *= decay_b; b1 *= decay_b; b2 *= decay_b; b3 *= decay_b;
        if (WIDE > 1u) {
            c0 *= decay_a; c1 *= decay_a; c2 *= decay_a; c3 *= decay_a;
            d0 *= decay_b; d1 *= decay_b; d2 *= decay_b; d3 *= decay_b;
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
    // The sum of each row over the 16 invocations that share it.
    tile_p[m * PITCH + n] = total_a;
    tile_p[m * PITCH + 8u + n] = total_b;
    workgroupBarrier();
    total_a = vec4f();
    total_b = vec4f();
    for (var j = 0u; j < SIDE; j++) {
        total_a += tile_p[j * PITCH + n];
        total_b += tile_p[j * PITCH + 8u + n];
    }
    // A row that attends to nothing has no sum: its result is 0, and the log of its sum -inf.
    let none_a = total_a == vec4f();
    let none_b = total_b == vec4f();
    if (m == 0u && left == 0u) {
        store_sums(head, first + n, select(top_a + log(total_a), vec4f(-infinity()), none_a));
        store_sums(head, first + n + 8u, select(top_b + log(total_b), vec4f(-infinity()), none_b));
    }
    let share_a = select(1.0 / total_a, vec4f(), none_a);
    let share_b = select(1.0 / total_b, vec4f(), none_b);
    let row = first + n;
    let to = left + m;
    store_lanes(head, row, to, a0 * share_a); store_lanes(head, row + 8u, to, b0 * share_b);
    store_lanes(head, row, to + 16u, a1 * share_a); store_lanes(head, row + 8u, to + 16u, b1 * share_b);
    store_lanes(head, row, to + 32u, a2 * share_a); store_lanes(head, row + 8u, to + 32u, b2 * share_b);
    store_lanes(head, row, to + 48u, a3 * share_a); store_lanes(head, row + 8u, to + 48u, b3 * share_b);
    if (WIDE > 1u) {
        store_lanes(head, row, to + 64u, c0 * share_a); store_lanes(head, row + 8u, to + 64u, d0 * share_b);
        store_lanes(head, row, to + 80u, c1 * share_a); store_lanes(head, row + 8u, to + 80u, d1 * share_b);
        store_lanes(head, row, to + 96u, c2 * share_a); store_lanes(head, row + 8u, to + 96u, d2 * share_b);
        store_lanes(head, row, to + 112u, c3 * share_a); store_lanes(head, row + 8u, to + 112u, d3 * share_b);
    }
}
