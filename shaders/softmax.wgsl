// One invocation computes one row of a softmax or log-softmax in three walks: maximum, sum, result.
// needs: WORKGROUP, rows, length, in_start, in_stride, out_start, out_stride, finish

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
    let first = in_start(row);
    var top = source[first];
    for (var k = 1u; k < length(); k++) {
        top = max_nan(top, source[first + k * in_stride()]);
    }
    var total = 0.0;
    for (var k = 0u; k < length(); k++) {
        total += exp(source[first + k * in_stride()] - top);
    }
    let to = out_start(row);
    for (var k = 0u; k < length(); k++) {
        out[to + k * out_stride()] = finish(source[first + k * in_stride()] - top, total);
    }
}
