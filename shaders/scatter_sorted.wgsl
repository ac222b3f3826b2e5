// One invocation computes one element of the result: its own value and, in order, every source element sent to it. Senders
// lie side by side, sorted by target; where a whole block of them has one target, its sum is taken.
// needs: WORKGROUP, items, columns, block, axis_of, locate, source_stride, order_start, bounds_start

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
        let at = place.source;
        let sender = order_start(place.column);
        let mine = bounds_start(place.column) + axis_of(i);
        var s = bounds[mine];
        let end = bounds[mine + 1u];
        while (s < end) {
            if (s % block() == 0u && s + block() <= end) {
                value += sums[s / block() * columns() + place.column];
                s += block();
            } else {
                value += source[at + order[sender + s] * source_stride()];
                s++;
            }
        }
    }
    out[i] = value;
}
