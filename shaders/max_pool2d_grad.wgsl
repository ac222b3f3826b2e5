// One invocation computes one pixel of the gradient: the sum over the windows whose maximum it was.
// needs: WORKGROUP, KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, items, height, width, out_h, out_w, pad_top, pad_left

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
    // The windows that cover the pixel: from the first whose end lies beyond it to the last that starts before it.
    let y_first = (max(y + 1u, KERNEL_H) - KERNEL_H + STRIDE_H - 1u) / STRIDE_H;
    let x_first = (max(x + 1u, KERNEL_W) - KERNEL_W + STRIDE_W - 1u) / STRIDE_W;
    let y_last = min(y / STRIDE_H, out_h() - 1u);
    let x_last = min(x / STRIDE_W, out_w() - 1u);
    var total = 0.0;
    for (var oy = y_first; oy <= y_last; oy++) {
        for (var ox = x_first; ox <= x_last; ox++) {
            let at = plane + oy * out_w() + ox;
            total += select(0.0, source[at], positions[at] == i32(place));
        }
    }
    out[i] = total;
}
