// One invocation computes one step of the output: `compute(i)` loads, evaluates and stores one element or four.
// needs: WORKGROUP, steps, compute

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * WORKGROUP + local;
    if (i < steps()) {
        compute(i);
    }
}
