// One workgroup stores the places of the elements other than 0 of one slice, behind those of the slices before it: each
// invocation counts them among PER neighbours, on top of all before these. A slice is of SPAN = WORKGROUP * PER elements.
// needs: WORKGROUP, PER, SPAN, slices, items, count, truth, before, store

// Elements lie one word further apart every 32: invocations that walk PER neighbours each then meet in no memory bank.
var<workgroup> staged: array<u32, SPAN + SPAN / 32u>;
var<workgroup> totals: array<u32, WORKGROUP>;

fn spot(j: u32) -> u32 {
    return j + j / 32u;
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let slice = group.x + group.y * groups.x;
    if (slice >= slices()) {
        return;
    }
    let first = slice * SPAN;
    for (var j = local; j < SPAN; j += WORKGROUP) {
        var value = 0u;
        if (first + j < items()) {
            value = truth(first + j);
        }
        staged[spot(j)] = value;
    }
    workgroupBarrier();
    var sum = 0u;
    for (var k = 0u; k < PER; k++) {
        sum += staged[spot(local * PER + k)];
    }
    totals[local] = sum;
    workgroupBarrier();
    for (var step = 1u; step < WORKGROUP; step *= 2u) {
        var all = totals[local];
        if (local >= step) {
            all += totals[local - step];
        }
        workgroupBarrier();
        totals[local] = all;
        workgroupBarrier();
    }
    // Each truth becomes 1 and the number of those before it.
    var n = before(slice) + totals[local] - sum;
    for (var k = 0u; k < PER; k++) {
        let at = spot(local * PER + k);
        if (staged[at] == 1u) {
            n++;
            staged[at] = n;
        }
    }
    workgroupBarrier();
    for (var j = local; j < SPAN; j += WORKGROUP) {
        let rank = staged[spot(j)];
        if (rank > 0u && rank <= count()) {
            store(rank - 1u, first + j);
        }
    }
}
