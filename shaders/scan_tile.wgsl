// One workgroup computes the running values of one slice of one row: each invocation those of PER neighbours, which it then
// puts on top of all that comes before them. A slice has WORKGROUP * PER elements at most. The totals first_carry(slice) .. slice
// of the row are what comes before a slice.
// needs: WORKGROUP, PER, Acc, rows, slices, length, in_start, in_stride, out_start, out_stride, identity, first_carry, carried, combine

const TILE = WORKGROUP * PER;
// Elements lie one word further apart every 32: invocations that walk PER neighbours each then meet in no memory bank.
var<workgroup> staged: array<Acc, TILE + TILE / 32u>;
var<workgroup> totals: array<Acc, WORKGROUP>;

fn spot(j: u32) -> u32 {
    return j + j / 32u;
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = group.x + group.y * groups.x;
    if (i >= rows() * slices()) {
        return;
    }
    let row = i % rows();
    let slice = i / rows();
    let first = slice * (length() / slices()) + min(slice, length() % slices());
    let count = length() / slices() + select(0u, 1u, slice < length() % slices());
    let at = in_start(row) + first * in_stride();
    for (var j = local; j < TILE; j += WORKGROUP) {
        var value = identity();
        if (j < count) {
            value = source[at + j * in_stride()];
        }
        staged[spot(j)] = value;
    }
    workgroupBarrier();
    var acc = staged[spot(local * PER)];
    for (var k = 1u; k < PER; k++) {
        acc = combine(acc, staged[spot(local * PER + k)]);
        staged[spot(local * PER + k)] = acc;
    }
    totals[local] = acc;
    workgroupBarrier();
    for (var step = 1u; step < WORKGROUP; step *= 2u) {
        var sum = totals[local];
        if (local >= step) {
            sum = combine(totals[local - step], sum);
        }
        workgroupBarrier();
        totals[local] = sum;
        workgroupBarrier();
    }
    var lead = identity();
    if (local > 0u) {
        lead = totals[local - 1u];
    }
    if (first_carry(slice) < slice) {
        var carry = identity();
        for (var j = first_carry(slice) + local; j < slice; j += WORKGROUP) {
            carry = combine(carry, carried(row, j));
        }
        workgroupBarrier();
        totals[local] = carry;
        workgroupBarrier();
        for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
            if (local < half) {
                totals[local] = combine(totals[local], totals[local + half]);
            }
            workgroupBarrier();
        }
        lead = combine(totals[0], lead);
    }
    for (var k = 0u; k < PER; k++) {
        staged[spot(local * PER + k)] = combine(lead, staged[spot(local * PER + k)]);
    }
    workgroupBarrier();
    let to = out_start(row);
    for (var j = local; j < count; j += WORKGROUP) {
        out[to + (first + j) * out_stride()] = staged[spot(j)];
    }
}
