// One workgroup computes the attention of 128 queries: it walks the keys in blocks of 64 through workgroup memory, with a running
// maximum and sum for each row, so that no score is stored (Milakov and Gimelshein 2018; Dao 2023). Each of 16 x 8 invocations
// has 8 queries x 8 keys of the scores, then 8 queries x 8 of 64 features of the result: twice the multiply-adds for each load
// from workgroup memory that attention_tile has. Group n of the queries is n, n + 32, n + 64 and n + 96, that of the keys n,
// n + 16, n + 32 and n + 48, the lanes of a vector; an invocation has the groups n and n + 16 of queries, m and m + 8 of keys.
// needs: DEPTH_QUADS, WIDTH_QUADS, PARTS, items, blocks, row_block, rows, columns, column_end, inside, scale, score, mask_start, x_start, x_at,
// y_start, y_at, z_start, z_at, store, store_lse

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
    let head = i / PARTS / blocks();
    let first = row_block(i / PARTS % blocks()) * 128u;
    let left = i % PARTS * 16u;  // in quads of features
    let m = local % 8u;
    let n = local / 8u;
    let x = x_start(head);
    let y = y_start(head);
    let z = z_start(head);
    let mask = mask_start(head);
    // a and b: the groups n and n + 16 of queries, each with one feature.
    var a0 = vec4f(); var a1 = vec4f(); var a2 = vec4f(); var a3 = vec4f();
    var a4 = vec4f(); var a5 = vec4f(); var a6 = vec4f(); var a7 = vec4f();
    var b0 = vec4f(); var b1 = vec4f(); var b2 = vec4f(); var b3 = vec4f();
    var b4 = vec4f(); var b5 = vec4f(); var b6 = vec4f(); var b7 = vec4f();
    var top_a = vec4f(-infinity());
    var top_b = vec4f(-infinity());
    var total_a = vec4f();
    var total_b = vec4f();
    let end = column_end(first);
    for (var column = 0u; column < end; column += 64u) {
        // s and t: the groups n and n + 16 of queries, each with one key.
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
        if (inside(first, column)) {
            s0 *= scale(); s1 *= scale(); s2 *= scale(); s3 *= scale(); s4 *= scale(); s5 *= scale(); s6 *= scale(); s7 *= scale();
            t0 *= scale(); t1 *= scale(); t2 *= scale(); t3 *= scale(); t4 *= scale(); t5 *= scale(); t6 *= scale(); t7 *= scale();
        } else {
            let row = first + n;
            let at = column + m;
            s0 = scores(mask, row, at, s0); t0 = scores(mask, row + 16u, at, t0);
            s1 = scores(mask, row, at + 16u, s1); t1 = scores(mask, row + 16u, at + 16u, t1);
            s2 = scores(mask, row, at + 32u, s2); t2 = scores(mask, row + 16u, at + 32u, t2);
            s3 = scores(mask, row, at + 48u, s3); t3 = scores(mask, row + 16u, at + 48u, t3);
            s4 = scores(mask, row, at + 8u, s4); t4 = scores(mask, row + 16u, at + 8u, t4);
            s5 = scores(mask, row, at + 24u, s5); t5 = scores(mask, row + 16u, at + 24u, t5);
            s6 = scores(mask, row, at + 40u, s6); t6 = scores(mask, row + 16u, at + 40u, t6);
            s7 = scores(mask, row, at + 56u, s7); t7 = scores(mask, row + 16u, at + 56u, t7);
        }
        // The maximum of each row over the 8 invocations that share it.
        tile_y[m * 32u + (n ^ m)] = max(max(max(s0, s1), max(s2, s3)), max(max(s4, s5), max(s6, s7)));
        tile_y[m * 32u + 16u + (n ^ m)] = max(max(max(t0, t1), max(t2, t3)), max(max(t4, t5), max(t6, t7)));
        workgroupBarrier();
        var raised_a = top_a;
        var raised_b = top_b;
        for (var j = 0u; j < 8u; j++) {
            raised_a = max(raised_a, tile_y[j * 32u + (n ^ j)]);
            raised_b = max(raised_b, tile_y[j * 32u + 16u + (n ^ j)]);
        }
        workgroupBarrier();
        let shift_a = finite_shift(raised_a);
        let shift_b = finite_shift(raised_b);
        let decay_a = exp_weights(top_a - shift_a);
        let decay_b = exp_weights(top_b - shift_b);
        top_a = raised_a;
        top_b = raised_b;
        s0 = exp_weights(s0 - shift_a); s1 = exp_weights(s1 - shift_a); s2 = exp_weights(s2 - shift_a); s3 = exp_weights(s3 - shift_a);
        s4 = exp_weights(s4 - shift_a); s5 = exp_weights(s5 - shift_a); s6 = exp_weights(s6 - shift_a); s7 = exp_weights(s7 - shift_a);
        t0 = exp_weights(t0 - shift_b); t1 = exp_weights(t1 - shift_b); t2 = exp_weights(t2 - shift_b); t3 = exp_weights(t3 - shift_b);
        t4 = exp_weights(t4 - shift_b); t5 = exp_weights(t5 - shift_b); t6 = exp_weights(t6 - shift_b); t7 = exp_weights(t7 - shift_b);
        total_a = total_a * decay_a + ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7));
        total_b = total_b * decay_b + ((t0 + t1) + (t2 + t3)) + ((t4 + t5) + (t6 + t7));
        a0 *= decay_a; a1 *= decay_a; a2 *= decay_a; a3 *= decay_a; a4 *= decay_a; a5 *= decay_a; a6 *= decay_a; a7 *= decay_a;
        b0 *= decay_b; b1 *= decay_b; b2 *= decay_b; b3 *= decay_b; b4 *= decay_b; b5 *= decay_b; b6 *= decay_b; b7 *= decay_b;
        // Two halves of the keys: those of the lanes x and y, then those of z and w.
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
    // The sum of each row over the 8 invocations that share it.
    tile_y[m * 32u + (n ^ m)] = total_a;
    tile_y[m * 32u + 16u + (n ^ m)] = total_b;
    workgroupBarrier();
    total_a = vec4f();
    total_b = vec4f();
    for (var j = 0u; j < 8u; j++) {
        total_a += tile_y[j * 32u + (n ^ j)];
        total_b += tile_y[j * 32u + 16u + (n ^ j)];
    }
    // A row that attends to nothing has no sum: its result is 0, and the log of its sum -inf.
    let none_a = total_a == vec4f();
    let none_b = total_b == vec4f();
    let row = first + n;
    if (m == 0u && left == 0u) {
        store_sums(head, row, select(top_a + log(total_a), vec4f(-infinity()), none_a));
        store_sums(head, row + 16u, select(top_b + log(total_b), vec4f(-infinity()), none_b));
    }
    let share_a = select(1.0 / total_a, vec4f(), none_a);
    let share_b = select(1.0 / total_b, vec4f(), none_b);
    let to = 4u * (left + m);
    store_rows(head, row, to, a0 * share_a, a1 * share_a, a2 * share_a, a3 * share_a);
    store_rows(head, row + 16u, to, b0 * share_b, b1 * share_b, b2 * share_b, b3 * share_b);
    store_rows(head, row, to + 32u, a4 * share_a, a5 * share_a, a6 * share_a, a7 * share_a);
    store_rows(head, row + 16u, to + 32u, b4 * share_b, b5 * share_b, b6 * share_b, b7 * share_b);
}
