// One invocation folds one slice of the contiguous elements that make one output element.
// needs: WORKGROUP, SPAN, Acc, outputs, slices, length, start_of, identity, nothing, load, load_part, combine, merge, join,
// store

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
    let slice = i / outputs();
    store(i, fold_row(start_of(i % outputs()), slice_start(slice), slice_start(slice + 1u), 0u, 1u));
}
