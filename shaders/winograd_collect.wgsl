// One invocation takes one tile back from the domain where a convolution with 3 x 3 weights is a product for each of 4 x 4 places
// (Winograd 1980; Lavin and Gray 2016): 2 x 2 pixels of the result, or the gradient of a filter.
// needs: WORKGROUP, items, collect, store

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * WORKGROUP + local;
    if (i >= items()) {
        return;
    }
    let v = mat4x4f(row(i), row(i + 4u * items()), row(i + 8u * items()), row(i + 12u * items()));
    // Columns of a matrix are the rows of the tile: `collect` adds whole rows.
    store(i, transpose(collect(transpose(collect(v)))));
}

fn row(at: u32) -> vec4f {
    return vec4f(source[at], source[at + items()], source[at + 2u * items()], source[at + 3u * items()]);
}
