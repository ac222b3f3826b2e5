// One workgroup computes 8 output channels x 8 weights over one slice of the batch's pixels: its invocations take
// neighbouring pixels, and add up through workgroup memory, in order. Slices are summed later. With SUMS it also sums the
// gradient itself, which is that of the bias.
// needs: WORKGROUP, KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, PADDED, SUMS, items, pixels_per_slice,
// slice_size, sums_start, pixels, height, width, out_h, out_w, pad_top, pad_left, in_channels, out_channels, group_in,
// group_out, group_blocks, columns, column_blocks

const CHUNK = 8u;
var<workgroup> shared_sums: array<vec4f, WORKGROUP * CHUNK>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = group.x + group.y * groups.x;
    if (i >= items()) {
        return;
    }
    let column = (i % column_blocks()) * 8u;
    let blocks = out_channels() / group_out() * group_blocks();
    let block = (i / column_blocks()) % blocks;
    let slice = i / (column_blocks() * blocks);
    let in_group = block / group_blocks();
    let o = in_group * group_out() + (block % group_blocks()) * 8u;
    let o_last = (in_group + 1u) * group_out() - 1u;
    let plane = out_h() * out_w();
    let t0 = window_tap(column, in_group); let t1 = window_tap(column + 1u, in_group);
    let t2 = window_tap(column + 2u, in_group); let t3 = window_tap(column + 3u, in_group);
    let t4 = window_tap(column + 4u, in_group); let t5 = window_tap(column + 5u, in_group);
    let t6 = window_tap(column + 6u, in_group); let t7 = window_tap(column + 7u, in_group);
    let g0 = o * plane; let g1 = min(o + 1u, o_last) * plane; let g2 = min(o + 2u, o_last) * plane; let g3 = min(o + 3u, o_last) * plane;
    let g4 = min(o + 4u, o_last) * plane; let g5 = min(o + 5u, o_last) * plane; let g6 = min(o + 6u, o_last) * plane; let g7 = min(o + 7u, o_last) * plane;
    var l0 = vec4f(); var l1 = vec4f(); var l2 = vec4f(); var l3 = vec4f(); var l4 = vec4f(); var l5 = vec4f(); var l6 = vec4f(); var l7 = vec4f();
    var h0 = vec4f(); var h1 = vec4f(); var h2 = vec4f(); var h3 = vec4f(); var h4 = vec4f(); var h5 = vec4f(); var h6 = vec4f(); var h7 = vec4f();
    var g_low = vec4f();
    var g_high = vec4f();
    let last = min((slice + 1u) * pixels_per_slice(), pixels());
    for (var p = slice * pixels_per_slice() + local; p < last; p += WORKGROUP) {
        let image = p / plane;
        let rest = p % plane;
        let y = (rest / out_w()) * STRIDE_H - pad_top();
        let x = (rest % out_w()) * STRIDE_W - pad_left();
        let base = vec3u((image * in_channels() * height() + y) * width() + x, y, x);
        let low = vec4f(window_pixel(base, t0), window_pixel(base, t1), window_pixel(base, t2), window_pixel(base, t3));
        let high = vec4f(window_pixel(base, t4), window_pixel(base, t5), window_pixel(base, t6), window_pixel(base, t7));
        let at = image * out_channels() * plane + rest;
        let v0 = grad[at + g0]; l0 += v0 * low; h0 += v0 * high;
        let v1 = grad[at + g1]; l1 += v1 * low; h1 += v1 * high;
        let v2 = grad[at + g2]; l2 += v2 * low; h2 += v2 * high;
        let v3 = grad[at + g3]; l3 += v3 * low; h3 += v3 * high;
        let v4 = grad[at + g4]; l4 += v4 * low; h4 += v4 * high;
        let v5 = grad[at + g5]; l5 += v5 * low; h5 += v5 * high;
        let v6 = grad[at + g6]; l6 += v6 * low; h6 += v6 * high;
        let v7 = grad[at + g7]; l7 += v7 * low; h7 += v7 * high;
        if (SUMS) {
            g_low += vec4f(v0, v1, v2, v3);
            g_high += vec4f(v4, v5, v6, v7);
        }
    }
    // The workgroup's sums, eight of the vectors at a time, so that they fit into 8 KiB for 64 invocations.
    let to = slice * slice_size();
    put(local, l0, h0, l1, h1, l2, h2, l3, h3);
    add_up(local);
    if (local < CHUNK) {
        store4(to, local, o, o_last, column, shared_sums[local * WORKGROUP]);
    }
    workgroupBarrier();
    put(local, l4, h4, l5, h5, l6, h6, l7, h7);
    add_up(local);
    if (local < CHUNK) {
        store4(to, CHUNK + local, o, o_last, column, shared_sums[local * WORKGROUP]);
    }
    if (SUMS) {
        workgroupBarrier();
        put(local, g_low, g_high, vec4f(), vec4f(), vec4f(), vec4f(), vec4f(), vec4f());
        add_up(local);
        if (local < 2u) {
            store4(to, 2u * CHUNK + local, o, o_last, column, shared_sums[local * WORKGROUP]);
        }
    }
}

fn put(local: u32, v0: vec4f, v1: vec4f, v2: vec4f, v3: vec4f, v4: vec4f, v5: vec4f, v6: vec4f, v7: vec4f) {
    shared_sums[local] = v0;
    shared_sums[WORKGROUP + local] = v1;
    shared_sums[2u * WORKGROUP + local] = v2;
    shared_sums[3u * WORKGROUP + local] = v3;
    shared_sums[4u * WORKGROUP + local] = v4;
    shared_sums[5u * WORKGROUP + local] = v5;
    shared_sums[6u * WORKGROUP + local] = v6;
    shared_sums[7u * WORKGROUP + local] = v7;
}

// Adds up each vector over the workgroup, in a tree.
fn add_up(local: u32) {
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if (local < half) {
            for (var k = 0u; k < CHUNK; k++) {
                shared_sums[k * WORKGROUP + local] += shared_sums[k * WORKGROUP + local + half];
            }
        }
        workgroupBarrier();
    }
}

// Stores vector k: weights (k even: the first four, odd: the last four) of channel o + k / 2; from 16 on, bias gradients.
fn store4(to: u32, k: u32, o: u32, o_last: u32, column: u32, v: vec4f) {
    if (k >= 16u) {
        let channel = o + (k - 16u) * 4u;
        for (var j = 0u; j < 4u; j++) {
            if (column == 0u && channel + j <= o_last) {
                out[to + sums_start() + channel + j] = v[j];
            }
        }
        return;
    }
    let channel = o + k / 2u;
    let first = column + (k % 2u) * 4u;
    for (var j = 0u; j < 4u; j++) {
        if (channel <= o_last && first + j < columns()) {
            out[to + channel * columns() + first + j] = v[j];
        }
    }
}
