// One invocation adds one number to its target, in any order: sums of whole numbers are the same in all of them.
// needs: WORKGROUP, items, limit, axis_stride, locate, add

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
    let place = locate(i);
    let named = index[place.index];
    let k = u32(select(named, named + i32(limit()), named < 0));
    if (k < limit()) {
        add(place.out + k * axis_stride(), source[place.source]);
    }
}
