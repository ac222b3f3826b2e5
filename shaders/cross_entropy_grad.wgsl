// One invocation computes one row of the gradient: (softmax(x) - one_hot(target)) times the row's cotangent. The
// loss of the row is at hand then: it may be stored, too.
// needs: WORKGROUP, rows, classes, logits_start, logits_row, logits_class, targets_start, targets_row, cotangent, store_loss

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
    let known = target_class >= 0 && u32(target_class) < classes();
    var loss = nan();
    if (known) {
        loss = log(total) - (logits[first + u32(target_class) * logits_class()] - top);
    }
    store_loss(row, loss);
    let g = select(nan(), cotangent(row), known);
    for (var k = 0u; k < classes(); k++) {
        let p = exp(logits[first + k * logits_class()] - top) / total;
        out[row * classes() + k] = (p - select(0.0, 1.0, k == u32(target_class))) * g;
    }
}
