// One invocation computes 8 pixels of 8 output channels in registers; pixels are counted through the whole batch.
// needs: WORKGROUP, KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, PADDED, pixels, blocks, out_w, out_hw,
// height, width, pad_top, pad_left, in_channels, out_channels, group_in, group_out, group_blocks, weight_row, weight_tap, initial, finish

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
    let base0 = window_corner(p0);
    let base1 = window_corner(p0 + WORKGROUP);
    let base2 = window_corner(p0 + WORKGROUP * 2u);
    let base3 = window_corner(p0 + WORKGROUP * 3u);
    let base4 = window_corner(p0 + WORKGROUP * 4u);
    let base5 = window_corner(p0 + WORKGROUP * 5u);
    let base6 = window_corner(p0 + WORKGROUP * 6u);
    let base7 = window_corner(p0 + WORKGROUP * 7u);
    let o_last = o_end - 1u;
    let o1 = min(o + 1u, o_last); let o2 = min(o + 2u, o_last); let o3 = min(o + 3u, o_last); let o4 = min(o + 4u, o_last);
    let o5 = min(o + 5u, o_last); let o6 = min(o + 6u, o_last); let o7 = min(o + 7u, o_last);
    let w0 = weight_row(o); let w1 = weight_row(o1); let w2 = weight_row(o2); let w3 = weight_row(o3);
    let w4 = weight_row(o4); let w5 = weight_row(o5); let w6 = weight_row(o6); let w7 = weight_row(o7);
    let low = vec4f(initial(o), initial(o1), initial(o2), initial(o3));
    let high = vec4f(initial(o4), initial(o5), initial(o6), initial(o7));
    var l0 = low; var l1 = low; var l2 = low; var l3 = low; var l4 = low; var l5 = low; var l6 = low; var l7 = low;
    var h0 = high; var h1 = high; var h2 = high; var h3 = high; var h4 = high; var h5 = high; var h6 = high; var h7 = high;
    for (var c = 0u; c < group_in(); c++) {
        let channel = (in_group * group_in() + c) * plane;
        for (var ky = 0u; ky < KERNEL_H; ky++) {
            for (var kx = 0u; kx < KERNEL_W; kx++) {
                let t = weight_tap(c, ky, kx);
                let w_low = vec4f(weight[w0 + t], weight[w1 + t], weight[w2 + t], weight[w3 + t]);
                let w_high = vec4f(weight[w4 + t], weight[w5 + t], weight[w6 + t], weight[w7 + t]);
                let dy = ky * DILATION_H;
                let dx = kx * DILATION_W;
                let tap = vec3u(channel + dy * width() + dx, dy, dx);
                let x0 = window_pixel(base0, tap); l0 += x0 * w_low; h0 += x0 * w_high;
                let x1 = window_pixel(base1, tap); l1 += x1 * w_low; h1 += x1 * w_high;
                let x2 = window_pixel(base2, tap); l2 += x2 * w_low; h2 += x2 * w_high;
                let x3 = window_pixel(base3, tap); l3 += x3 * w_low; h3 += x3 * w_high;
                let x4 = window_pixel(base4, tap); l4 += x4 * w_low; h4 += x4 * w_high;
                let x5 = window_pixel(base5, tap); l5 += x5 * w_low; h5 += x5 * w_high;
                let x6 = window_pixel(base6, tap); l6 += x6 * w_low; h6 += x6 * w_high;
                let x7 = window_pixel(base7, tap); l7 += x7 * w_low; h7 += x7 * w_high;
            }
        }
    }
    store_channels(p0, out_hw(), o, o_end, l0, h0);
    store_channels(p0 + WORKGROUP, out_hw(), o, o_end, l1, h1);
    store_channels(p0 + WORKGROUP * 2u, out_hw(), o, o_end, l2, h2);
    store_channels(p0 + WORKGROUP * 3u, out_hw(), o, o_end, l3, h3);
    store_channels(p0 + WORKGROUP * 4u, out_hw(), o, o_end, l4, h4);
    store_channels(p0 + WORKGROUP * 5u, out_hw(), o, o_end, l5, h5);
    store_channels(p0 + WORKGROUP * 6u, out_hw(), o, o_end, l6, h6);
    store_channels(p0 + WORKGROUP * 7u, out_hw(), o, o_end, l7, h7);
}
