// One invocation computes the gradient of one normalised row in three walks: means, products, result.
// needs: WORKGROUP, CENTRED, rows, length, epsilon, fetch, fetch_cotangent, put

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
    var mean_u = 0.0;
    if (CENTRED) {
        var sum = vec4f();
        var sum_u = vec4f();
        for (var q = 0u; q < quads; q++) {
            sum += fetch(row, q);
            sum_u += fetch_cotangent(row, q);
        }
        mean = dot(sum, vec4f(1.0)) / n;
        mean_u = dot(sum_u, vec4f(1.0)) / n;
    }
    var squares = vec4f();
    var products = vec4f();
    for (var q = 0u; q < quads; q++) {
        let v = (fetch(row, q) - mean) * within(q);
        squares += v * v;
        products += v * fetch_cotangent(row, q);
    }
    let r = inverseSqrt(dot(squares, vec4f(1.0)) / n + epsilon());
    let along = dot(products, vec4f(1.0)) / n * r * r;
    for (var q = 0u; q < quads; q++) {
        put(row, q, r * (fetch_cotangent(row, q) - mean_u - along * (fetch(row, q) - mean)));
    }
}
