// One workgroup folds one slice of the contiguous elements that make one output element, then combines in a tree.
// needs: WORKGROUP, Acc, outputs, slices, length, start_of, identity, load, combine, store

var<workgroup> shared_acc: array<Acc, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = group.x + group.y * groups.x;
    if (i >= outputs() * slices()) {
        return;
    }
    let o = i % outputs();
    let slice = i / outputs();
    let first = slice * (length() / slices()) + min(slice, length() % slices());
    let last = first + length() / slices() + select(0u, 1u, slice < length() % slices());
    let at = start_of(o);
    var acc = identity();
    for (var r = first + local; r < last; r += WORKGROUP) {
        acc = combine(acc, load(at + r, r));
    }
    shared_acc[local] = acc;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if (local < half) {
            shared_acc[local] = combine(shared_acc[local], shared_acc[local + half]);
        }
        workgroupBarrier();
    }
    if (local == 0u) {
        store(i, shared_acc[0]);
    }
}
