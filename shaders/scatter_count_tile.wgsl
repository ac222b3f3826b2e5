// One workgroup adds up what its share of the senders sends to each target, and then adds these sums to the targets: senders
// to few targets would wait for each other's atomics on the result.
// needs: WORKGROUP, LIMIT, Word, items, share, limit, axis_stride, locate, add, add_here, number

var<workgroup> sums: array<atomic<Word>, LIMIT>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let first = (group.x + group.y * groups.x) * share();
    for (var k = local; k < limit(); k += WORKGROUP) {
        atomicStore(&sums[k], Word(0));
    }
    workgroupBarrier();
    for (var i = first + local; i < min(first + share(), items()); i += WORKGROUP) {
        let place = locate(i);
        let named = index[place.index];
        let k = u32(select(named, named + i32(limit()), named < 0));
        if (k < limit()) {
            add_here(k, source[place.source]);
        }
    }
    workgroupBarrier();
    for (var k = local; k < limit(); k += WORKGROUP) {
        let sum = atomicLoad(&sums[k]);
        if (sum != Word(0)) {
            add(locate(0u).out + k * axis_stride(), number(sum));
        }
    }
}
