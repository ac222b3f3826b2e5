// One invocation computes 8 pixels of 8 output channels in registers; pixels are counted through the whole batch.
// needs: WORKGROUP, KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, PADDED, pixels, blocks, out_w, out_hw,
// height, width, pad_top, pad_left, in_channels, out_channels, group_in, group_out, group_blocks, weight_at, initial

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let flat = group.x + group.y * groups.x;
    let block = flat % blocks();
    // Neighbours compute neighbouring pixels, so that their loads and stores lie side by side.
    let p0 = (flat / blocks()) * (WORKGROUP * 8u) + local;
    if (p0 >= pixels()) {
        return;
    }
    let in_group = block / group_blocks();
    let o = in_group * group_out() + (block % group_blocks()) * 8u;
    let o_end = (in_group + 1u) * group_out();
    let plane = height() * width();
    let base0 = corner(p0);
    let base1 = corner(p0 + WORKGROUP);
    let base2 = corner(p0 + WORKGROUP * 2u);
    let base3 = corner(p0 + WORKGROUP * 3u);
    let base4 = corner(p0 + WORKGROUP * 4u);
    let base5 = corner(p0 + WORKGROUP * 5u);
    let base6 = corner(p0 + WORKGROUP * 6u);
    let base7 = corner(p0 + WORKGROUP * 7u);
    let o0 = o; let o1 = min(o + 1u, o_end - 1u); let o2 = min(o + 2u, o_end - 1u); let o3 = min(o + 3u, o_end - 1u);
    let o4 = min(o + 4u, o_end - 1u); let o5 = min(o + 5u, o_end - 1u); let o6 = min(o + 6u, o_end - 1u); let o7 = min(o + 7u, o_end - 1u);
    let low = vec4f(initial(o0), initial(o1), initial(o2), initial(o3));
    let high = vec4f(initial(o4), initial(o5), initial(o6), initial(o7));
    var l0 = low; var l1 = low; var l2 = low; var l3 = low; var l4 = low; var l5 = low; var l6 = low; var l7 = low;
    var h0 = high; var h1 = high; var h2 = high; var h3 = high; var h4 = high; var h5 = high; var h6 = high; var h7 = high;
    for (var c = 0u; c < group_in(); c++) {
        let channel = (in_group * group_in() + c) * plane;
        for (var ky = 0u; ky < KERNEL_H; ky++) {
            for (var kx = 0u; kx < KERNEL_W; kx++) {
                let w_low = vec4f(weight_at(o0, c, ky, kx), weight_at(o1, c, ky, kx), weight_at(o2, c, ky, kx), weight_at(o3, c, ky, kx));
                let w_high = vec4f(weight_at(o4, c, ky, kx), weight_at(o5, c, ky, kx), weight_at(o6, c, ky, kx), weight_at(o7, c, ky, kx));
                let dy = ky * DILATION_H;
                let dx = kx * DILATION_W;
                let x0 = pixel(base0, channel, dy, dx); l0 += x0 * w_low; h0 += x0 * w_high;
                let x1 = pixel(base1, channel, dy, dx); l1 += x1 * w_low; h1 += x1 * w_high;
                let x2 = pixel(base2, channel, dy, dx); l2 += x2 * w_low; h2 += x2 * w_high;
                let x3 = pixel(base3, channel, dy, dx); l3 += x3 * w_low; h3 += x3 * w_high;
                let x4 = pixel(base4, channel, dy, dx); l4 += x4 * w_low; h4 += x4 * w_high;
                let x5 = pixel(base5, channel, dy, dx); l5 += x5 * w_low; h5 += x5 * w_high;
                let x6 = pixel(base6, channel, dy, dx); l6 += x6 * w_low; h6 += x6 * w_high;
                let x7 = pixel(base7, channel, dy, dx); l7 += x7 * w_low; h7 += x7 * w_high;
            }
        }
    }
    store8(p0, o, o_end, l0, h0);
    store8(p0 + WORKGROUP, o, o_end, l1, h1);
    store8(p0 + WORKGROUP * 2u, o, o_end, l2, h2);
    store8(p0 + WORKGROUP * 3u, o, o_end, l3, h3);
    store8(p0 + WORKGROUP * 4u, o, o_end, l4, h4);
    store8(p0 + WORKGROUP * 5u, o, o_end, l5, h5);
    store8(p0 + WORKGROUP * 6u, o, o_end, l6, h6);
    store8(p0 + WORKGROUP * 7u, o, o_end, l7, h7);
}

// The window's upper left corner: where its image starts in memory, its row and its column, which may lie in the padding.
// Pixels beyond the last one stand in for it, and are not stored.
fn corner(p: u32) -> vec3i {
    let q = min(p, pixels() - 1u);
    let image = q / out_hw();
    let rest = q % out_hw();
    let y = i32((rest / out_w()) * STRIDE_H) - i32(pad_top());
    let x = i32((rest % out_w()) * STRIDE_W) - i32(pad_left());
    return vec3i(i32(image * in_channels() * height() * width()), y, x);
}

fn pixel(base: vec3i, channel: u32, dy: u32, dx: u32) -> f32 {
    let y = u32(base.y) + dy;
    let x = u32(base.z) + dx;
    if (PADDED && (y >= height() || x >= width())) {
        return 0.0;
    }
    return source[u32(base.x) + channel + y * width() + x];
}

fn store8(p: u32, o: u32, o_end: u32, low: vec4f, high: vec4f) {
    if (p >= pixels()) {
        return;
    }
    let to = ((p / out_hw()) * out_channels() + o) * out_hw() + p % out_hw();
    out[to] = low.x;
    if (o + 1u < o_end) { out[to + out_hw()] = low.y; }
    if (o + 2u < o_end) { out[to + 2u * out_hw()] = low.z; }
    if (o + 3u < o_end) { out[to + 3u * out_hw()] = low.w; }
    if (o + 4u < o_end) { out[to + 4u * out_hw()] = high.x; }
    if (o + 5u < o_end) { out[to + 5u * out_hw()] = high.y; }
    if (o + 6u < o_end) { out[to + 6u * out_hw()] = high.z; }
    if (o + 7u < o_end) { out[to + 7u * out_hw()] = high.w; }
}
