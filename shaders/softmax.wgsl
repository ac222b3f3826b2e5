// One invocation computes one row of a softmax or log-softmax in three walks: maximum, sum, result.
// needs: WORKGROUP, LOG, rows, length, fetch, put

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
    let quads = (length() + 3u) / 4u;
    var tops = fetch(row, 0u);
    for (var q = 1u; q < quads; q++) {
        tops = max_nan4(tops, fetch(row, q));
    }
    let top = largest(tops);
    var sums = vec4f();
    for (var q = 0u; q < quads; q++) {
        sums += exp_nan4(fetch(row, q) - top);
    }
    let total = dot(sums, vec4f(1.0));
    for (var q = 0u; q < quads; q++) {
        let v = fetch(row, q) - top;
        if (LOG) {
            put(row, q, v - log(total));
        } else {
            put(row, q, exp_nan4(v) / total);
        }
    }
}
