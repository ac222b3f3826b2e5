// One workgroup computes one row of a softmax or log-softmax; its invocations share the row and combine in a tree.
// needs: WORKGROUP, rows, length, in_start, in_stride, out_start, out_stride, finish

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
    let first = in_start(row);
    var top = source[first];
    for (var k = local; k < length(); k += WORKGROUP) {
        top = max_nan(top, source[first + k * in_stride()]);
    }
    shared_value[local] = top;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if (local < half) {
            shared_value[local] = max_nan(shared_value[local], shared_value[local + half]);
        }
        workgroupBarrier();
    }
    top = shared_value[0];
    workgroupBarrier();
    var total = 0.0;
    for (var k = local; k < length(); k += WORKGROUP) {
        total += exp(source[first + k * in_stride()] - top);
    }
    shared_value[local] = total;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if (local < half) {
            shared_value[local] += shared_value[local + half];
        }
        workgroupBarrier();
    }
    total = shared_value[0];
    let to = out_start(row);
    for (var k = local; k < length(); k += WORKGROUP) {
        out[to + k * out_stride()] = finish(source[first + k * in_stride()] - top, total);
    }
}
