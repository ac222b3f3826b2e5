// One invocation finds the first maximum of one window; a NaN counts as larger than any number.
// needs: WORKGROUP, KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, items, height, width, out_h, out_w, pad_top, pad_left, store

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
    var best = 0.0;
    var place = 0u;
    var found = false;
    for (var ky = 0; ky < i32(KERNEL_H); ky++) {
        for (var kx = 0; kx < i32(KERNEL_W); kx++) {
            let y = top + ky;
            let x = left + kx;
            if (y < 0 || y >= i32(height()) || x < 0 || x >= i32(width())) {
                continue;
            }
            let at = u32(y) * width() + u32(x);
            let value = source[plane + at];
            if (!found || (!is_nan(best) && (is_nan(value) || value > best))) {
                best = value;
                place = at;
                found = true;
            }
        }
    }
    store(i, best, place);
}
