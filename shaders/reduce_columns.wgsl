// One workgroup folds LANES slices of each of WORKGROUP / LANES neighbouring outputs, side by side, and combines them in a
// tree: the variant for few outputs that lie next to each other in memory.
// needs: WORKGROUP, LANES, Acc, outputs, length, start_of, stride, identity, load, combine, store

const WIDTH = WORKGROUP / LANES;
var<workgroup> shared_acc: array<Acc, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let o = (group.x + group.y * groups.x) * WIDTH + local % WIDTH;
    let lane = local / WIDTH;
    var acc = identity();
    if (o < outputs()) {
        let at = start_of(o);
        for (var r = lane; r < length(); r += LANES) {
            acc = combine(acc, load(at + r * stride(0u), r));
        }
    }
    shared_acc[local] = acc;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if (lane < half) {
            shared_acc[local] = combine(shared_acc[local], shared_acc[local + half * WIDTH]);
        }
        workgroupBarrier();
    }
    if (lane == 0u && o < outputs()) {
        store(o, shared_acc[local]);
    }
}
