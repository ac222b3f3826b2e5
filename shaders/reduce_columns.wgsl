// One workgroup folds one slice of WORKGROUP / LANES times SPAN outputs that are neighbours in memory, LANES invocations
// each SPAN of them, and combines these in a tree.
// needs: WORKGROUP, LANES, SPAN, Part, outputs, slices, length, start_of, stride, nothing, load_part, merge, pick, store

const WIDTH = WORKGROUP / LANES;
var<workgroup> shared_part: array<Part, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let across = (outputs() + WIDTH * SPAN - 1u) / (WIDTH * SPAN);
    let at = group.x + group.y * groups.x;
    let slice = at / across;
    let o = ((at % across) * WIDTH + local % WIDTH) * SPAN;
    let lane = local / WIDTH;
    var part = nothing();
    if (o < outputs() && slice < slices()) {
        part = fold_columns(start_of(o), slice_start(slice), slice_start(slice + 1u), lane, LANES);
    }
    shared_part[local] = part;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if (lane < half) {
            shared_part[local] = merge(shared_part[local], shared_part[local + half * WIDTH]);
        }
        workgroupBarrier();
    }
    if (lane == 0u && o < outputs() && slice < slices()) {
        for (var k = 0u; k < SPAN; k++) {
            store(slice * outputs() + o + k, pick(shared_part[local], k));
        }
    }
}
