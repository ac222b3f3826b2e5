// One invocation counts the elements other than 0 of one slice of SPAN elements.
// needs: WORKGROUP, SPAN, slices, items, truth

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let slice = (group.x + group.y * groups.x) * WORKGROUP + local;
    if (slice >= slices()) {
        return;
    }
    var sum = 0u;
    for (var j = slice * SPAN; j < min((slice + 1u) * SPAN, items()); j++) {
        sum += truth(j);
    }
    out[slice] = i32(sum);
}
