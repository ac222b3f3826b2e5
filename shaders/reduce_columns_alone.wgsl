// One invocation folds one slice of PARTS times SPAN outputs that are neighbours in memory: a line of the cache, or less.
// needs: WORKGROUP, SPAN, PARTS, Part, outputs, slices, length, start_of, stride, nothing, load_part, merge, pick, store

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = ((group.x + group.y * groups.x) * WORKGROUP + local) * SPAN * PARTS;
    if (i >= outputs() * slices()) {
        return;
    }
    let slice = i / outputs();
    let first = slice_start(slice);
    let last = slice_start(slice + 1u);
    let top = start_of(i % outputs());
    if (PARTS == 1u) {
        let part = fold_columns(top, first, last, 0u, 1u);
        for (var k = 0u; k < SPAN; k++) {
            store(i + k, pick(part, k));
        }
        return;
    }
    var p0 = nothing();
    var p1 = nothing();
    var p2 = nothing();
    var p3 = nothing();
    var at = top + first * stride(0u);
    for (var r = first; r < last; r++) {
        let l0 = load_part(at, r);
        let l1 = load_part(at + SPAN, r);
        let l2 = load_part(at + 2u * SPAN, r);
        let l3 = load_part(at + 3u * SPAN, r);
        p0 = merge(p0, l0);
        p1 = merge(p1, l1);
        p2 = merge(p2, l2);
        p3 = merge(p3, l3);
        at += stride(0u);
    }
    for (var k = 0u; k < SPAN; k++) {
        store(i + k, pick(p0, k));
        store(i + SPAN + k, pick(p1, k));
        store(i + 2u * SPAN + k, pick(p2, k));
        store(i + 3u * SPAN + k, pick(p3, k));
    }
}
