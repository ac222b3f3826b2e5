// One invocation computes one pixel of the gradient: its share of every bin that averaged it.
// needs: WORKGROUP, items, height, width, out_h, out_w

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
    let plane = (i / (width() * height())) * out_h() * out_w();
    // The bins that cover y are those with floor(oy h / out) <= y < ceil((oy + 1) h / out).
    let oy_first = y * out_h() / height();
    let ox_first = x * out_w() / width();
    let oy_last = ((y + 1u) * out_h() - 1u) / height();
    let ox_last = ((x + 1u) * out_w() - 1u) / width();
    var total = 0.0;
    for (var oy = oy_first; oy <= oy_last; oy++) {
        let rows = ((oy + 1u) * height() + out_h() - 1u) / out_h() - oy * height() / out_h();
        for (var ox = ox_first; ox <= ox_last; ox++) {
            let columns = ((ox + 1u) * width() + out_w() - 1u) / out_w() - ox * width() / out_w();
            total += source[plane + oy * out_w() + ox] / f32(rows * columns);
        }
    }
    out[i] = total;
}
