// One invocation normalises one row in three walks: mean, variance, result.
// needs: WORKGROUP, CENTRED, rows, length, epsilon, fetch, put

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let row = (group.x + group.y * groups.x) * WORKGROUP + local;
    if (row >= rows()) {
        return;
    }
    let n = f32(length());
    let quads = (length() + 3u) / 4u;
    var mean = 0.0;
    if (CENTRED) {
        var sum = vec4f();
        for (var q = 0u; q < quads; q++) {
            sum += fetch(row, q);
        }
        mean = dot(sum, vec4f(1.0)) / n;
    }
    var squares = vec4f();
    for (var q = 0u; q < quads; q++) {
        let v = (fetch(row, q) - mean) * within(q);
        squares += v * v;
    }
    let r = inverseSqrt(dot(squares, vec4f(1.0)) / n + epsilon());
    for (var q = 0u; q < quads; q++) {
        put(row, q, (fetch(row, q) - mean) * r);
    }
}
