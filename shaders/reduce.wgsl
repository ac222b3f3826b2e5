// One invocation folds one slice of the elements that make one output element, in order.
// needs: WORKGROUP, RANK, outputs, slices, length, start_of, stride, count, identity, load, combine, store

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * WORKGROUP + local;
    if (i >= outputs() * slices()) {
        return;
    }
    let o = i % outputs();
    let slice = i / outputs();
    let first = slice_start(slice);
    let last = slice_start(slice + 1u);
    var at = start_of(o);
    var c: array<u32, RANK>;
    var rest = first;
    for (var d = RANK - 1u; d > 0u; d--) {
        c[d] = rest % count(d);
        at += c[d] * stride(d);
        rest /= count(d);
    }
    c[0] = rest;
    at += rest * stride(0u);
    var acc = identity();
    for (var r = first; r < last; r++) {
        acc = combine(acc, load(at, r));
        var d = RANK - 1u;
        c[d]++;
        at += stride(d);
        while (d > 0u && c[d] == count(d)) {
            at -= count(d) * stride(d);
            c[d] = 0u;
            d--;
            c[d]++;
            at += stride(d);
        }
    }
    store(i, acc);
}
