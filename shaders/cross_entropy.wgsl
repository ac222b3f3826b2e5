// One invocation computes the loss of one row: log(sum(exp(x))) - x[target], shifted by the maximum.
// needs: WORKGROUP, rows, classes, logits_start, logits_row, logits_class, targets_start, targets_row

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
    let first = logits_start() + row * logits_row();
    var top = logits[first];
    for (var k = 1u; k < classes(); k++) {
        top = max_nan(top, logits[first + k * logits_class()]);
    }
    var total = 0.0;
    for (var k = 0u; k < classes(); k++) {
        total += exp(logits[first + k * logits_class()] - top);
    }
    let target_class = targets[targets_start() + row * targets_row()];
    // A target out of range has no probability: the loss of the row is NaN, as an index beyond an axis reads NaN.
    var loss = nan();
    if (target_class >= 0 && u32(target_class) < classes()) {
        loss = log(total) - (logits[first + u32(target_class) * logits_class()] - top);
    }
    out[row] = loss;
}
