// One workgroup computes one row of a softmax or log-softmax in two walks: the maximum with the sum relative to it, which is
// scaled whenever a larger one comes (Milakov and Gimelshein 2018), and the result.
// needs: WORKGROUP, LANES, LOG, rows, length, fetch, put

var<workgroup> shared_value: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let row = group.x + group.y * groups.x;
    if (row >= rows()) {
        return;
    }
    let quads = (length() + 3u) / 4u;
    var top = -infinity();
    var total = 0.0;
    var q = local;
    for (; q + 3u * WORKGROUP < quads; q += 4u * WORKGROUP) {
        let a = fetch(row, q);
        let b = fetch(row, q + WORKGROUP);
        let c = fetch(row, q + 2u * WORKGROUP);
        let d = fetch(row, q + 3u * WORKGROUP);
        let next = max_nan(top, largest(max_nan4(max_nan4(a, b), max_nan4(c, d))));
        let base = finite_base(next);
        let sum = exp_nan4(a - base) + exp_nan4(b - base) + (exp_nan4(c - base) + exp_nan4(d - base));
        total = total * exp_nan(top - base) + dot(sum, vec4f(1.0));
        top = next;
    }
    for (; q < quads; q += WORKGROUP) {
        let a = fetch(row, q);
        let next = max_nan(top, largest(a));
        let base = finite_base(next);
        total = total * exp_nan(top - base) + dot(exp_nan4(a - base), vec4f(1.0));
        top = next;
    }
    let all = lanes_max(local, top);
    total = lanes_sum(local, total * exp_nan(top - finite_base(all)));
    for (q = local; q < quads; q += WORKGROUP) {
        let v = fetch(row, q) - all;
        if (LOG) {
            put(row, q, v - log(total));
        } else {
            put(row, q, exp_nan4(v) * (1.0 / total));
        }
    }
}
