// One invocation computes the running values of one slice of one row, in order, on top of all slices before it.
// needs: WORKGROUP, rows, slices, length, in_start, in_stride, out_start, out_stride, identity, first_carry, carried, combine

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * WORKGROUP + local;
    if (i >= rows() * slices()) {
        return;
    }
    let row = i % rows();
    let slice = i / rows();
    // Slices share the elements evenly: their lengths differ by one at most.
    let first = slice * (length() / slices()) + min(slice, length() % slices());
    let last = first + length() / slices() + select(0u, 1u, slice < length() % slices());
    var at = in_start(row) + first * in_stride();
    var to = out_start(row) + first * out_stride();
    var acc = identity();
    if (first_carry(slice) < slice) {
        acc = carried(row, slice - 1u);
    }
    for (var r = first; r < last; r++) {
        acc = combine(acc, source[at]);
        out[to] = acc;
        at += in_stride();
        to += out_stride();
    }
}
