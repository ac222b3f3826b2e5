// One invocation computes one pixel of the gradient: its share of every window that averaged it.
// needs: WORKGROUP, KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, INCLUDE_PAD, items, height, width, out_h, out_w, pad_top, pad_left

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
    let place = i % (height() * width());
    let y = place / width() + pad_top();
    let x = place % width() + pad_left();
    let plane = (i / (height() * width())) * out_h() * out_w();
    let y_first = (max(y + 1u, KERNEL_H) - KERNEL_H + STRIDE_H - 1u) / STRIDE_H;
    let x_first = (max(x + 1u, KERNEL_W) - KERNEL_W + STRIDE_W - 1u) / STRIDE_W;
    let y_last = min(y / STRIDE_H, out_h() - 1u);
    let x_last = min(x / STRIDE_W, out_w() - 1u);
    var total = 0.0;
    for (var oy = y_first; oy <= y_last; oy++) {
        let rows = min(oy * STRIDE_H + KERNEL_H, height() + pad_top()) - max(oy * STRIDE_H, pad_top());
        for (var ox = x_first; ox <= x_last; ox++) {
            let columns = min(ox * STRIDE_W + KERNEL_W, width() + pad_left()) - max(ox * STRIDE_W, pad_left());
            total += source[plane + oy * out_w() + ox] / f32(select(rows * columns, KERNEL_H * KERNEL_W, INCLUDE_PAD));
        }
    }
    out[i] = total;
}
