// One invocation computes one pixel of the input's gradient: it gathers every window that saw the pixel. Any stride.
// needs: WORKGROUP, KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, items, height, width, in_channels,
// out_h, out_w, out_channels, pad_top, pad_left, group_in, group_out, finish

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
    let x = i % width();
    let y = (i / width()) % height();
    let c = (i / (width() * height())) % in_channels();
    let image = i / (width() * height() * in_channels());
    let in_group = c / group_in();
    var total = 0.0;
    for (var ky = 0u; ky < KERNEL_H; ky++) {
        let row = y + pad_top() - ky * DILATION_H;
        if (row >= out_h() * STRIDE_H || row % STRIDE_H != 0u) {
            continue;
        }
        for (var kx = 0u; kx < KERNEL_W; kx++) {
            let column = x + pad_left() - kx * DILATION_W;
            if (column >= out_w() * STRIDE_W || column % STRIDE_W != 0u) {
                continue;
            }
            for (var k = 0u; k < group_out(); k++) {
                let o = in_group * group_out() + k;
                let at = ((image * out_channels() + o) * out_h() + row / STRIDE_H) * out_w() + column / STRIDE_W;
                let tap = ((o * group_in() + c % group_in()) * KERNEL_H + ky) * KERNEL_W + kx;
                total += source[at] * weight[tap];
            }
        }
    }
    out[i] = finish(i, total);
}
