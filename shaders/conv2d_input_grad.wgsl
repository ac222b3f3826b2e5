// One invocation computes one pixel of the input's gradient: it gathers every window that saw the pixel. Any stride.
// needs: WORKGROUP, KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, STEP_H, STEP_W, items, height, width,
// in_channels, out_h, out_w, out_channels, pad_top, pad_left, group_in, group_out, finish

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
    let x = i % width() + pad_left();
    let y = (i / width()) % height() + pad_top();
    let c = (i / (width() * height())) % in_channels();
    let image = i / (width() * height() * in_channels());
    let in_group = c / group_in();
    let plane = out_h() * out_w();
    let from_g = (image * out_channels() + in_group * group_out()) * plane;
    let from_w = (in_group * group_out() * group_in() + c % group_in()) * KERNEL_H * KERNEL_W;
    var total = 0.0;
    for (var ky = first_tap(y, STRIDE_H, DILATION_H, STEP_H); ky < KERNEL_H; ky += STEP_H) {
        let row = y - ky * DILATION_H;
        for (var kx = first_tap(x, STRIDE_W, DILATION_W, STEP_W); kx < KERNEL_W; kx += STEP_W) {
            let column = x - kx * DILATION_W;
            // Beyond the gradient's end, or before its start, where the difference wraps around.
            if (row >= out_h() * STRIDE_H || column >= out_w() * STRIDE_W) {
                continue;
            }
            var at = from_g + (row / STRIDE_H) * out_w() + column / STRIDE_W;
            var tap = from_w + ky * KERNEL_W + kx;
            for (var k = 0u; k < group_out(); k++) {
                total += source[at] * weight[tap];
                at += plane;
                tap += group_in() * KERNEL_H * KERNEL_W;
            }
        }
    }
    out[i] = finish(i, total);
}
