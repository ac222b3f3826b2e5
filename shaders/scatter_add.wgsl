// One invocation computes one element of the result: its own value and, in order, every source element sent to it.
// needs: WORKGROUP, items, limit, senders, axis_of, locate, index_stride, source_stride

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
    var value = base[place.base];
    if (place.inside) {
        let mine = i32(axis_of(i));
        for (var k = 0u; k < senders(); k++) {
            let named = index[place.index + k * index_stride()];
            if (select(named, named + i32(limit()), named < 0) == mine) {
                value += source[place.source + k * source_stride()];
            }
        }
    }
    out[i] = value;
}
