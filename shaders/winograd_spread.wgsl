// One invocation takes one tile into the domain where a convolution with 3 x 3 weights is a product for each of 4 x 4 places
// (Winograd 1980; Lavin and Gray 2016): a patch of the input, a filter, or a patch of the result's gradient. Place k of all
// tiles lies together.
// needs: WORKGROUP, items, load, spread

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
    // Columns of a matrix are the rows of the tile: `spread` adds whole rows.
    let v = transpose(spread(transpose(spread(load(i)))));
    put(i, v[0]);
    put(i + 4u * items(), v[1]);
    put(i + 8u * items(), v[2]);
    put(i + 12u * items(), v[3]);
}

fn put(at: u32, v: vec4f) {
    out[at] = v.x;
    out[at + items()] = v.y;
    out[at + 2u * items()] = v.z;
    out[at + 3u * items()] = v.w;
}
