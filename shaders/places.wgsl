// One invocation writes its own place to where its running count says, if the count steps up there.
// needs: WORKGROUP, items, count, start, stride

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
    let sum = counts[start() + i * stride()];
    var before = 0;
    if (i > 0u) {
        before = counts[start() + (i - 1u) * stride()];
    }
    if (sum > before && u32(before) < count()) {
        out[before] = i32(i);
    }
}
