// One invocation computes 8 output channels x 8 weights of a 3-d convolution over one slice of the batch's rows; slices are
// summed later, in order. With SUMS it also sums the gradient itself, which is that of the bias.
// needs: WORKGROUP, KERNEL_D, KERNEL_H, KERNEL_W, STRIDE_D, STRIDE_H, STRIDE_W, DILATION_D, DILATION_H, DILATION_W, PADDED, SUMS,
// items, rows_per_slice, slice_size, sums_start, rows, depth, height, width, out_d, out_h, out_w, pad_front, pad_top, pad_left,
// in_channels, out_channels, group_in, group_out, group_blocks, columns, column_blocks

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
    // A column is one weight of a filter: channel, slice, row, column.
    let column = (i % column_blocks()) * 8u;
    let block = (i / column_blocks()) % (out_channels() / group_out() * group_blocks());
    let slice = i / (column_blocks() * (out_channels() / group_out() * group_blocks()));
    let in_group = block / group_blocks();
    let o = in_group * group_out() + (block % group_blocks()) * 8u;
    let o_last = (in_group + 1u) * group_out() - 1u;
    let t0 = volume_tap(column, in_group); let t1 = volume_tap(column + 1u, in_group);
    let t2 = volume_tap(column + 2u, in_group); let t3 = volume_tap(column + 3u, in_group);
    let t4 = volume_tap(column + 4u, in_group); let t5 = volume_tap(column + 5u, in_group);
    let t6 = volume_tap(column + 6u, in_group); let t7 = volume_tap(column + 7u, in_group);
    let volume = out_d() * out_h() * out_w();
    let g0 = o * volume; let g1 = min(o + 1u, o_last) * volume; let g2 = min(o + 2u, o_last) * volume; let g3 = min(o + 3u, o_last) * volume;
    let g4 = min(o + 4u, o_last) * volume; let g5 = min(o + 5u, o_last) * volume; let g6 = min(o + 6u, o_last) * volume; let g7 = min(o + 7u, o_last) * volume;
    var l0 = vec4f(); var l1 = vec4f(); var l2 = vec4f(); var l3 = vec4f(); var l4 = vec4f(); var l5 = vec4f(); var l6 = vec4f(); var l7 = vec4f();
    var h0 = vec4f(); var h1 = vec4f(); var h2 = vec4f(); var h3 = vec4f(); var h4 = vec4f(); var h5 = vec4f(); var h6 = vec4f(); var h7 = vec4f();
    var g_low = vec4f();
    var g_high = vec4f();
    let last = min((slice + 1u) * rows_per_slice(), rows());
    for (var row = slice * rows_per_slice(); row < last; row++) {
        let image = row / (out_d() * out_h());
        let from_g = image * out_channels() * volume + row % (out_d() * out_h()) * out_w();
        let z = ((row / out_h()) % out_d()) * STRIDE_D - pad_front();
        let y = (row % out_h()) * STRIDE_H - pad_top();
        let from_x = ((image * in_channels() * depth() + z) * height() + y) * width();
        for (var ox = 0u; ox < out_w(); ox++) {
            let x = ox * STRIDE_W - pad_left();
            let base = vec4u(from_x + x, z, y, x);
            let low = vec4f(volume_pixel(base, t0), volume_pixel(base, t1), volume_pixel(base, t2), volume_pixel(base, t3));
            let high = vec4f(volume_pixel(base, t4), volume_pixel(base, t5), volume_pixel(base, t6), volume_pixel(base, t7));
            let at = from_g + ox;
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
    }
    let to = slice * slice_size();
    store_row(o, o_last, to, column, l0, h0);
    store_row(o + 1u, o_last, to, column, l1, h1);
    store_row(o + 2u, o_last, to, column, l2, h2);
    store_row(o + 3u, o_last, to, column, l3, h3);
    store_row(o + 4u, o_last, to, column, l4, h4);
    store_row(o + 5u, o_last, to, column, l5, h5);
    store_row(o + 6u, o_last, to, column, l6, h6);
    store_row(o + 7u, o_last, to, column, l7, h7);
    if (SUMS && column == 0u) {
        store_up_to(o_last - o + 1u, to + sums_start() + o, g_low, g_high);
    }
}

// Eight neighbours of an output channel's weights; nothing beyond the last channel.
fn store_row(o: u32, o_last: u32, to: u32, column: u32, low: vec4f, high: vec4f) {
    if (o <= o_last) {
        store_up_to(columns() - column, to + o * columns() + column, low, high);
    }
}
