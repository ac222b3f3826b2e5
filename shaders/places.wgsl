// One invocation stores the places of the elements other than 0 of one slice, behind those of the slices before it.
// needs: WORKGROUP, SPAN, slices, items, count, truth, before, store

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
    var n = before(slice);
    for (var j = slice * SPAN; j < min((slice + 1u) * SPAN, items()); j++) {
        if (truth(j) == 1u) {
            if (n < count()) {
                store(n, j);
            }
            n++;
        }
    }
}
