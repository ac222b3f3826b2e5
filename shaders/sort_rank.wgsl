// One invocation finds the place of one element in its sorted row: how many have a smaller key, or the same and stand before.
// needs: WORKGROUP, rows, length, keep, in_start, in_stride, out_start, out_stride, key_of

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * WORKGROUP + local;
    if (i >= rows() * length()) {
        return;
    }
    let row = i / length();
    let mine = i % length();
    let start = in_start(row);
    let key = key_of(start + mine * in_stride());
    var place = 0u;
    var at = start;
    for (var r = 0u; r < length(); r++) {
        let other = key_of(at);
        place += select(0u, 1u, other < key || (other == key && r < mine));
        at += in_stride();
    }
    if (place < keep()) {
        out[out_start(row) + place * out_stride()] = i32(mine);
    }
}
