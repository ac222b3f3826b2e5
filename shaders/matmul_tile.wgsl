// One workgroup computes a TILE x TILE block of a product through workgroup memory, 4 x 4 outputs an invocation. GROUPS teams
// of SIDE x SIDE invocations share the inner axis where there are few blocks, and add up in order.
// needs: TILE, SIDE, GROUPS, rows, columns, inner, batches, slices, per_slice, a_start, b_start, c_start, a_load, b_load, c_store,
// A_BY_INNER, B_BY_INNER, SUMS, sums_store

const STEP = 16u;
const LOADS = STEP / SIDE;
const AREA = STEP * SIDE;
var<workgroup> tile_a: array<vec4f, AREA * GROUPS>;
var<workgroup> tile_b: array<vec4f, AREA * GROUPS>;

@compute @workgroup_size(SIDE * SIDE * GROUPS)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) index: u32,
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
    let team = index / (SIDE * SIDE);
    let local = index % (SIDE * SIDE);
    let mine = team * AREA;
    let x = local % SIDE;
    let y = local / SIDE;
    var c0 = vec4f(); var c1 = vec4f(); var c2 = vec4f(); var c3 = vec4f();
    var sums = vec4f();
    let last = min((slice + 1u) * per_slice(), inner());
    var next_a: array<vec4f, LOADS>;
    var next_b: array<vec4f, LOADS>;
    let first = slice * per_slice() + team * STEP;
    let advance = STEP * GROUPS;
    for (var i = 0u; i < LOADS; i++) {
        let pa = place(local + i * SIDE * SIDE, A_BY_INNER);
        let pb = place(local + i * SIDE * SIDE, B_BY_INNER);
        next_a[i] = a_load(a, m + pa.y * 4u, first + pa.x);
        next_b[i] = b_load(b, first + pb.x, n + pb.y * 4u);
    }
    // All teams take as many steps as the first, as barriers are for all; what lies beyond the end loads as zeros. They
    // count by the first team's step, so that a compiler sees that they do.
    for (var base = slice * per_slice(); base < last; base += advance) {
        let k = base + team * STEP;
        for (var i = 0u; i < LOADS; i++) {
            let pa = place(local + i * SIDE * SIDE, A_BY_INNER);
            let pb = place(local + i * SIDE * SIDE, B_BY_INNER);
            tile_a[mine + pa.x * SIDE + pa.y] = next_a[i];
            tile_b[mine + pb.x * SIDE + pb.y] = next_b[i];
        }
        workgroupBarrier();
        // The next step's loads are under way while this one is computed.
        for (var i = 0u; i < LOADS; i++) {
            let pa = place(local + i * SIDE * SIDE, A_BY_INNER);
            let pb = place(local + i * SIDE * SIDE, B_BY_INNER);
            next_a[i] = a_load(a, m + pa.y * 4u, k + advance + pa.x);
            next_b[i] = b_load(b, k + advance + pb.x, n + pb.y * 4u);
        }
        for (var step = 0u; step < STEP; step++) {
            let va = tile_a[mine + step * SIDE + y];
            let vb = tile_b[mine + step * SIDE + x];
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
    if (GROUPS > 1u) {
        // A tree over the teams, each in its own part of the tiles' memory.
        for (var half = GROUPS / 2u; half > 0u; half /= 2u) {
            if (team >= half && team < 2u * half) {
                tile_a[mine + local] = c0;
                tile_a[mine + SIDE * SIDE + local] = c1;
                tile_b[mine + local] = c2;
                tile_b[mine + SIDE * SIDE + local] = c3;
            }
            workgroupBarrier();
            let theirs = mine + half * AREA + local;
            if (team < half) {
                c0 += tile_a[theirs];
                c1 += tile_a[theirs + SIDE * SIDE];
                c2 += tile_b[theirs];
                c3 += tile_b[theirs + SIDE * SIDE];
            }
            workgroupBarrier();
            if (SUMS) {
                if (team >= half && team < 2u * half) {
                    tile_a[mine + local] = sums;
                }
                workgroupBarrier();
                if (team < half) {
                    sums += tile_a[theirs];
                }
                workgroupBarrier();
            }
        }
        if (team != 0u) {
            return;
        }
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

// The inner step and the group of four rows or columns that an invocation loads: neighbours read along the axis that is
// contiguous in memory.
fn place(i: u32, by_inner: bool) -> vec2u {
    return select(vec2u(i / SIDE, i % SIDE), vec2u(i % STEP, i / STEP), by_inner);
}
