// One workgroup counts the elements other than 0 of one slice of SPAN elements; WORKGROUP is a power of two.
// needs: WORKGROUP, SPAN, slices, items, truth

var<workgroup> sums: array<u32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let slice = group.x + group.y * groups.x;
    if (slice >= slices()) {
        return;
    }
    var sum = 0u;
    for (var j = slice * SPAN + local; j < min((slice + 1u) * SPAN, items()); j += WORKGROUP) {
        sum += truth(j);
    }
    sums[local] = sum;
    workgroupBarrier();
    for (var step = WORKGROUP / 2u; step > 0u; step /= 2u) {
        if (local < step) {
            sums[local] += sums[local + step];
        }
        workgroupBarrier();
    }
    if (local == 0u) {
        out[slice] = i32(sums[0]);
    }
}
