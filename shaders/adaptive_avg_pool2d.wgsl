// One invocation averages one bin: along each axis, bin i covers floor(i n / out) to ceil((i + 1) n / out).
// needs: WORKGROUP, items, height, width, out_h, out_w, finish

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
    let ox = i % out_w();
    let oy = (i / out_w()) % out_h();
    let plane = (i / (out_w() * out_h())) * height() * width();
    let y0 = oy * height() / out_h();
    let x0 = ox * width() / out_w();
    let y1 = ((oy + 1u) * height() + out_h() - 1u) / out_h();
    let x1 = ((ox + 1u) * width() + out_w() - 1u) / out_w();
    var total = 0.0;
    for (var y = y0; y < y1; y++) {
        for (var x = x0; x < x1; x++) {
            total += source[plane + y * width() + x];
        }
    }
    out[i] = finish(i, total / f32((y1 - y0) * (x1 - x0)));
}
