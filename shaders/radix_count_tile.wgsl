// One workgroup counts, for each value of the keys' lowest digit, the keys of one tile of a row that have it.
// needs: WORKGROUP, DIGITS, rows, parts

const SPREAD = 8u; // counters of a value: neighbours seldom wait for each other's atomics
var<workgroup> found: array<atomic<u32>, DIGITS * SPREAD>;

fn count(key: u32, local: u32) {
    atomicAdd(&found[key % DIGITS * SPREAD + local % SPREAD], 1u);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = group.x + group.y * groups.x;
    if (i >= rows() * parts()) {
        return;
    }
    for (var j = local; j < DIGITS * SPREAD; j += WORKGROUP) {
        atomicStore(&found[j], 0u); // NOTE: llvmpipe (Mesa 22) does not begin with zeros here, as WGSL promises.
    }
    workgroupBarrier();
    // A tile has eight keys for each invocation, and rows are filled up to whole tiles.
    for (var k = 0u; k < 2u; k++) {
        let four = keys[(i * 2u + k) * WORKGROUP + local];
        count(four.x, local);
        count(four.y, local);
        count(four.z, local);
        count(four.w, local);
    }
    workgroupBarrier();
    for (var d = local; d < DIGITS; d += WORKGROUP) {
        var total = 0u;
        for (var k = 0u; k < SPREAD; k++) {
            total += atomicLoad(&found[d * SPREAD + k]);
        }
        counts[(i / parts() * DIGITS + d) * parts() + i % parts()] = total;
    }
}
