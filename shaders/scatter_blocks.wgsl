// One invocation adds up one block of the senders of one column, in the order of their targets.
// needs: WORKGROUP, items, columns, senders, block, source_start, source_stride, order_start

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
    let column = i % columns();
    let first = i / columns() * block();
    let at = source_start(column);
    let sender = order_start(column);
    var sum = source[at + order[sender + first] * source_stride()];
    for (var s = first + 1u; s < min(first + block(), senders()); s++) {
        sum += source[at + order[sender + s] * source_stride()];
    }
    sums[i] = sum;
}
