// One workgroup computes a TILE x TILE block of a product through workgroup memory, 4 x 4 outputs an invocation.
// needs: TILE, SIDE, rows, columns, inner, batches, slices, per_slice, a_start, b_start, c_start, a_load, b_load, c_store,
// A_BY_INNER, B_BY_INNER, SUMS, sums_store

const STEP = 16u;
var<workgroup> tile_a: array<vec4f, STEP * SIDE>;
var<workgroup> tile_b: array<vec4f, STEP * SIDE>;

@compute @workgroup_size(SIDE * SIDE)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let tiles_x = (columns() + TILE - 1u) / TILE;
    let tiles_y = (rows() + TILE - 1u) / TILE;
    let flat = group.x + group.y * groups.x;
    if (flat >= tiles_x * tiles_y * batches() * slices()) {
        return;
    }
    let n = (flat % tiles_x) * TILE;
    let m = ((flat / tiles_x) % tiles_y) * TILE;
    let batch = (flat / (tiles_x * tiles_y)) % batches();
    let slice = flat / (tiles_x * tiles_y) / batches();
    let a = a_start(batch);
    let b = b_start(batch);
    let x = local % SIDE;
    let y = local / SIDE;
    var c0 = vec4f(); var c1 = vec4f(); var c2 = vec4f(); var c3 = vec4f();
    var sums = vec4f();
    let last = min((slice + 1u) * per_slice(), inner());
    for (var k = slice * per_slice(); k < last; k += STEP) {
        // Neighbouring invocations read along the axis that is contiguous in memory.
        for (var i = local; i < STEP * SIDE; i += SIDE * SIDE) {
            let by_inner = vec2u(i % STEP, i / STEP);
            let by_side = vec2u(i / SIDE, i % SIDE);
            let pa = select(by_side, by_inner, A_BY_INNER);
            let pb = select(by_side, by_inner, B_BY_INNER);
            tile_a[pa.x * SIDE + pa.y] = a_load(a, m + pa.y * 4u, k + pa.x);
            tile_b[pb.x * SIDE + pb.y] = b_load(b, k + pb.x, n + pb.y * 4u);
        }
        workgroupBarrier();
        for (var step = 0u; step < STEP; step++) {
            let va = tile_a[step * SIDE + y];
            let vb = tile_b[step * SIDE + x];
            if (SUMS) {
                sums += vb;
            }
            c0 += va.x * vb;
            c1 += va.y * vb;
            c2 += va.z * vb;
            c3 += va.w * vb;
        }
        workgroupBarrier();
    }
    if (SUMS && m + y == 0u) {
        sums_store(n + x * 4u, sums);
    }
    let c = c_start(batch, slice);
    let row = m + y * 4u;
    let column = n + x * 4u;
    if (row < rows()) { c_store(c, row, column, c0); }
    if (row + 1u < rows()) { c_store(c, row + 1u, column, c1); }
    if (row + 2u < rows()) { c_store(c, row + 2u, column, c2); }
    if (row + 3u < rows()) { c_store(c, row + 3u, column, c3); }
}
