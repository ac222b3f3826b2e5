// One invocation copies the element, or the four neighbours, that its index names; an index out of range gives `missing()`.
// What another launch holds of a source in parts, it leaves alone.
// needs: WORKGROUP, items, limit, first, held, axis_stride, locate, missing

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
    var value = missing();
    if (k < limit()) {
        if (k - first() >= held()) {
            return;
        }
        value = source[place.source + (k - first()) * axis_stride()];
    }
    out[i] = value;
}
