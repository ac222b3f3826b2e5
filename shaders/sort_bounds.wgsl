// One invocation finds where one number begins in one sorted row of words: the first place whose word is no less.
// needs: WORKGROUP, rows, numbers, length, pitch, shift

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * WORKGROUP + local;
    if (i >= rows() * numbers()) {
        return;
    }
    let row = i / numbers() * pitch();
    let number = i % numbers();
    var low = 0u;
    var high = length();
    while (low < high) {
        let middle = (low + high) / 2u;
        if ((keys[row + middle] >> shift()) < number) {
            low = middle + 1u;
        } else {
            high = middle;
        }
    }
    out[i] = low;
}
