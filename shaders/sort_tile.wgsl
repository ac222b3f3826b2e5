// One workgroup sorts one tile of one row, by key and among equal keys by place, and writes the first `keep` of it.
// needs: WORKGROUP, TILE, rows, tiles, length, span, keep, key_at, place_at, store

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
    // Batcher's bitonic network over `span` elements, a power of two.
    for (var size = 2u; size <= span(); size *= 2u) {
        for (var step = size / 2u; step > 0u; step /= 2u) {
            for (var p = local; p < span() / 2u; p += WORKGROUP) {
                let a = 2u * p - (p & (step - 1u));
                let b = a + step;
                let after = keys[a] > keys[b] || (keys[a] == keys[b] && places[a] > places[b]);
                if (after == ((a & size) == 0u)) {
                    let key = keys[a];
                    let place = places[a];
                    keys[a] = keys[b];
                    places[a] = places[b];
                    keys[b] = key;
                    places[b] = place;
                }
            }
            workgroupBarrier();
        }
    }
    for (var j = local; j < keep(); j += WORKGROUP) {
        store(row, tile, j, keys[j], places[j]);
    }
}
