// One invocation counts, for each value of the keys' lowest digit, the keys of one part of one row that have it.
// needs: WORKGROUP, DIGITS, rows, parts, part, length, pitch

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * WORKGROUP + local;
    if (i >= rows() * parts()) {
        return;
    }
    let row = i / parts();
    let first = i % parts() * part();
    var found: array<u32, DIGITS>;
    for (var r = first; r < min(first + part(), length()); r++) {
        found[keys[row * pitch() + r] % DIGITS] += 1u;
    }
    for (var d = 0u; d < DIGITS; d++) {
        counts[(row * DIGITS + d) * parts() + i % parts()] = found[d];
    }
}
