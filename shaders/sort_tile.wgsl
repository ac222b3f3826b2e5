// One workgroup sorts one tile of one row, by key and among equal keys by place, and writes the first `keep` of it, which
// are no more than `runs`.
// needs: WORKGROUP, TILE, rows, tiles, length, span, runs, keep, key_at, place_at, store

var<workgroup> keys: array<u32, TILE>;
var<workgroup> places: array<u32, TILE>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = group.x + group.y * groups.x;
    if (i >= rows() * tiles()) {
        return;
    }
    let row = i / tiles();
    let tile = i % tiles();
    for (var j = local; j < span(); j += WORKGROUP) {
        let r = tile * TILE + j;
        // What fills a tile up comes last: no element has the largest key and the largest place.
        var key = 0xffffffffu;
        var place = 0xffffffffu;
        if (r < length()) {
            key = key_at(row, r);
            place = place_at(row, r);
        }
        keys[j] = key;
        places[j] = place;
    }
    workgroupBarrier();
    // Batcher's bitonic network over runs, a power of two of elements each, whose order goes up and down by turns.
    for (var size = 2u; size <= runs(); size *= 2u) {
        for (var step = size / 2u; step > 0u; step /= 2u) {
            for (var p = local; p < span() / 2u; p += WORKGROUP) {
                let a = 2u * p - (p & (step - 1u));
                exchange(a, a + step, (a & size) == 0u);
            }
            workgroupBarrier();
        }
    }
    // Of two runs the smaller elements are one again, in no order but one that the same network sorts; the others are left.
    for (var size = 2u * runs(); size <= span(); size *= 2u) {
        for (var p = local; p < span() / size * runs(); p += WORKGROUP) {
            let a = p / runs() * size + p % runs();
            exchange(a, a + size / 2u, true);
        }
        workgroupBarrier();
        for (var step = runs() / 2u; step > 0u; step /= 2u) {
            for (var p = local; p < span() / size * runs() / 2u; p += WORKGROUP) {
                let q = p % (runs() / 2u);
                let a = p / (runs() / 2u) * size + 2u * q - (q & (step - 1u));
                exchange(a, a + step, (a & size) == 0u);
            }
            workgroupBarrier();
        }
    }
    for (var j = local; j < keep(); j += WORKGROUP) {
        store(row, tile, j, keys[j], places[j]);
    }
}

// Puts the smaller of two elements first, or the larger one.
fn exchange(a: u32, b: u32, up: bool) {
    let after = keys[a] > keys[b] || (keys[a] == keys[b] && places[a] > places[b]);
    if (after == up) {
        let key = keys[a];
        let place = places[a];
        keys[a] = keys[b];
        places[a] = places[b];
        keys[b] = key;
        places[b] = place;
    }
}
