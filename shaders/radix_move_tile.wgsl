// One workgroup moves the keys of one tile of a row, in order, to where their lowest digit belongs, and rotates it away. It
// sorts the tile in its own memory first, so that neighbours are written side by side.
// needs: WORKGROUP, BITS, rows, parts, carried

const DIGITS = 1u << BITS;
const HALF = DIGITS / 2u;
const PER = 8u;
const TILE = WORKGROUP * PER; // also the number of counters: HALF is PER

// Counters first, keys and places later. Words lie one further apart every 32, which keeps neighbours out of each other's
// memory bank where they walk PER words each.
var<workgroup> lane: array<u32, TILE + TILE / 32u>;
var<workgroup> totals: array<u32, WORKGROUP>;
var<workgroup> shift: array<u32, DIGITS>; // from the place in the sorted tile to that in the row, for each digit

fn spot(j: u32) -> u32 {
    return j + j / 32u;
}

// Two counters share a word: those of a digit and of the one HALF above.
fn counter(digit: u32, local: u32) -> u32 {
    return spot(digit % HALF * WORKGROUP + local);
}

fn half_of(word: u32, digit: u32) -> u32 {
    return (word >> (digit / HALF * 16u)) & 0xffffu;
}

// Counts a key and returns how many of its digit this invocation has counted before.
fn count(key: u32, local: u32) -> u32 {
    let digit = key % DIGITS;
    let at = counter(digit, local);
    let word = lane[at];
    lane[at] = word + (1u << (digit / HALF * 16u));
    return half_of(word, digit);
}

fn rank(key: u32, earlier: u32, local: u32) -> u32 {
    let digit = key % DIGITS;
    return earlier + half_of(lane[counter(digit, local)], digit);
}

fn target_of(j: u32) -> u32 {
    return j + shift[lane[spot(j)] % DIGITS];
}

fn put(to: vec4u, four: vec4u) {
    lane[spot(to.x)] = four.x;
    lane[spot(to.y)] = four.y;
    lane[spot(to.z)] = four.z;
    lane[spot(to.w)] = four.w;
}

fn rotated(j: u32) -> u32 {
    let key = lane[spot(j)];
    return (key >> BITS) | (key << (32u - BITS));
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = group.x + group.y * groups.x;
    if (i >= rows() * parts()) {
        return;
    }
    let row = i / parts();
    let part = i % parts();
    let at = i * WORKGROUP * 2u + local * 2u;
    let a = keys[at];
    let b = keys[at + 1u];
    for (var d = 0u; d < HALF; d++) {
        lane[counter(d, local)] = 0u;
    }
    var to_a: vec4u;
    var to_b: vec4u;
    to_a.x = count(a.x, local);
    to_a.y = count(a.y, local);
    to_a.z = count(a.z, local);
    to_a.w = count(a.w, local);
    to_b.x = count(b.x, local);
    to_b.y = count(b.y, local);
    to_b.z = count(b.z, local);
    to_b.w = count(b.w, local);
    workgroupBarrier();
    // Running sums over all counters, in the order of digits and then of invocations; both halves of the words at once.
    var sum = 0u;
    for (var k = 0u; k < PER; k++) {
        sum += lane[spot(local * PER + k)];
    }
    totals[local] = sum;
    workgroupBarrier();
    for (var step = 1u; step < WORKGROUP; step *= 2u) {
        if (local >= step) {
            sum += totals[local - step];
        }
        workgroupBarrier();
        totals[local] = sum;
        workgroupBarrier();
    }
    // The digits of the upper half begin where those of the lower one end.
    var next = totals[WORKGROUP - 1u] << 16u;
    if (local > 0u) {
        next += totals[local - 1u];
    }
    for (var k = 0u; k < PER; k++) {
        let word = lane[spot(local * PER + k)];
        lane[spot(local * PER + k)] = next;
        next += word;
    }
    workgroupBarrier();
    to_a.x = rank(a.x, to_a.x, local);
    to_a.y = rank(a.y, to_a.y, local);
    to_a.z = rank(a.z, to_a.z, local);
    to_a.w = rank(a.w, to_a.w, local);
    to_b.x = rank(b.x, to_b.x, local);
    to_b.y = rank(b.y, to_b.y, local);
    to_b.z = rank(b.z, to_b.z, local);
    to_b.w = rank(b.w, to_b.w, local);
    for (var d = local; d < DIGITS; d += WORKGROUP) {
        let entry = d * parts() + part;
        let begin = select(ends[row * DIGITS * parts() + max(entry, 1u) - 1u], 0u, entry == 0u);
        shift[d] = row * parts() * TILE + begin - half_of(lane[counter(d, 0u)], d);
    }
    workgroupBarrier();
    put(to_a, a);
    put(to_b, b);
    workgroupBarrier();
    let w0 = target_of(local);
    let w1 = target_of(local + WORKGROUP);
    let w2 = target_of(local + WORKGROUP * 2u);
    let w3 = target_of(local + WORKGROUP * 3u);
    let w4 = target_of(local + WORKGROUP * 4u);
    let w5 = target_of(local + WORKGROUP * 5u);
    let w6 = target_of(local + WORKGROUP * 6u);
    let w7 = target_of(local + WORKGROUP * 7u);
    moved[w0] = rotated(local);
    moved[w1] = rotated(local + WORKGROUP);
    moved[w2] = rotated(local + WORKGROUP * 2u);
    moved[w3] = rotated(local + WORKGROUP * 3u);
    moved[w4] = rotated(local + WORKGROUP * 4u);
    moved[w5] = rotated(local + WORKGROUP * 5u);
    moved[w6] = rotated(local + WORKGROUP * 6u);
    moved[w7] = rotated(local + WORKGROUP * 7u);
    workgroupBarrier();
    let place = part * TILE + local * PER;
    put(to_a, carried(at, place));
    put(to_b, carried(at + 1u, place + 4u));
    workgroupBarrier();
    places[w0] = lane[spot(local)];
    places[w1] = lane[spot(local + WORKGROUP)];
    places[w2] = lane[spot(local + WORKGROUP * 2u)];
    places[w3] = lane[spot(local + WORKGROUP * 3u)];
    places[w4] = lane[spot(local + WORKGROUP * 4u)];
    places[w5] = lane[spot(local + WORKGROUP * 5u)];
    places[w6] = lane[spot(local + WORKGROUP * 6u)];
    places[w7] = lane[spot(local + WORKGROUP * 7u)];
}
