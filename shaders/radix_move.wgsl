// One invocation moves the keys of one part of one row, in order, to where their lowest digit belongs, and rotates it away.
// needs: WORKGROUP, BITS, rows, parts, part, length, pitch, carried

const DIGITS = 1u << BITS;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * WORKGROUP + local;
    if (i >= rows() * parts()) {
        return;
    }
    let row = i / parts();
    let first = i % parts() * part();
    // `ends` are running sums over the digits and the parts of a row: one entry earlier stands where an entry begins.
    var next: array<u32, DIGITS>;
    for (var d = 0u; d < DIGITS; d++) {
        let entry = d * parts() + i % parts();
        next[d] = select(ends[row * DIGITS * parts() + max(entry, 1u) - 1u], 0u, entry == 0u);
    }
    for (var r = first; r < min(first + part(), length()); r++) {
        let key = keys[row * pitch() + r];
        let to = row * pitch() + next[key % DIGITS];
        next[key % DIGITS] += 1u;
        moved[to] = (key >> BITS) | (key << (32u - BITS));
        places[to] = carried(row * pitch() + r, r);
    }
}
