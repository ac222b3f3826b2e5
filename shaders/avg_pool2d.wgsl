// One invocation averages one window; padding counts as zeros with INCLUDE_PAD, and not at all without.
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
    let top = i32(((i / out_w()) % out_h()) * STRIDE_H) - i32(pad_top());
    let left = i32((i % out_w()) * STRIDE_W) - i32(pad_left());
    let plane = (i / (out_w() * out_h())) * height() * width();
    let y0 = u32(max(top, 0));
    let x0 = u32(max(left, 0));
    let y1 = u32(min(top + i32(KERNEL_H), i32(height())));
    let x1 = u32(min(left + i32(KERNEL_W), i32(width())));
    var total = 0.0;
    for (var y = y0; y < y1; y++) {
        for (var x = x0; x < x1; x++) {
            total += source[plane + y * width() + x];
        }
    }
    out[i] = total / f32(select((y1 - y0) * (x1 - x0), KERNEL_H * KERNEL_W, INCLUDE_PAD));
}
