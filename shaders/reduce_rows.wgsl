// One workgroup folds slices of contiguous elements, LANES invocations a slice, and combines each slice's in a tree.
// needs: WORKGROUP, LANES, SPAN, Acc, outputs, slices, length, start_of, identity, nothing, load, load_part, combine, merge,
// join, store

var<workgroup> shared_acc: array<Acc, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * (WORKGROUP / LANES) + local / LANES;
    let lane = local % LANES;
    var acc = identity();
    if (i < outputs() * slices()) {
        let slice = i / outputs();
        acc = fold_row(start_of(i % outputs()), slice_start(slice), slice_start(slice + 1u), lane, LANES);
    }
    shared_acc[local] = acc;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if (lane < half) {
            shared_acc[local] = combine(shared_acc[local], shared_acc[local + half]);
        }
        workgroupBarrier();
    }
    if (lane == 0u && i < outputs() * slices()) {
        store(i, shared_acc[local]);
    }
}
