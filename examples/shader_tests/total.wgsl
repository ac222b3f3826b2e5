// One workgroup adds up one row: each invocation a part of it, then all of them as a tree in workgroup memory.
// WORKGROUP and LENGTH, the length of a row, are left to whoever uses this body.
@group(0) @binding(0) var<storage, read> rows: array<f32>;
@group(0) @binding(1) var<storage, read_write> totals: array<f32>;

var<workgroup> parts: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32) {
    var sum = 0.0;
    for (var i = index; i < LENGTH; i += WORKGROUP) {
        sum += rows[group.x * LENGTH + i];
    }
    parts[index] = sum;
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if (index < half) {
            parts[index] += parts[index + half];
        }
        workgroupBarrier();
    }
    if (index == 0u) {
        totals[group.x] = parts[0];
    }
}
