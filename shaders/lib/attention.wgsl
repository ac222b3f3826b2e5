// exp(x) for x of 0 or less, of four rows at once: 0 where it would be no normal number, as some drivers' exp(-inf) is
// not 0; NaN stays NaN.
fn exp_weights(x: vec4f) -> vec4f {
    let y = select(exp(x), vec4f(), x < vec4f(-87.0));
    return select(y, x, (bitcast<vec4u>(x) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
}

// What scores are shifted by for a row whose largest is x: nothing as long as it has seen none but -inf.
fn finite_shift(x: vec4f) -> vec4f {
    return select(x, vec4f(), x == vec4f(-infinity()));
}

// One of four by its number.
fn one_of_four(i: u32, v0: vec4f, v1: vec4f, v2: vec4f, v3: vec4f) -> vec4f {
    return select(select(v0, v1, i == 1u), select(v2, v3, i == 3u), i > 1u);
}

// The scores of four rows, APART from each other, with one column; the head's mask lies from `from_mask` on.
fn scores(from_mask: u32, row: u32, column: u32, s: vec4f) -> vec4f {
    return vec4f(
        score(from_mask, row, column, s.x),
        score(from_mask, row + APART, column, s.y),
        score(from_mask, row + 2u * APART, column, s.z),
        score(from_mask, row + 3u * APART, column, s.w),
    );
}

// Log-sum-exps of four members of a head from i on, `apart` from each other, and what their cotangents are lessened by.
fn lses_of(head: u32, i: u32, apart: u32) -> vec4f {
    let v = vec4f(lse_at(head, i), lse_at(head, i + apart), lse_at(head, i + 2u * apart), lse_at(head, i + 3u * apart));
    return finite_shift(v);
}

fn deltas_of(head: u32, i: u32, apart: u32) -> vec4f {
    return vec4f(delta_at(head, i), delta_at(head, i + apart), delta_at(head, i + 2u * apart), delta_at(head, i + 3u * apart));
}

// One feature of four rows, those of them that there are; and the sums of their scores.
fn store_lanes(head: u32, row: u32, column: u32, v: vec4f) {
    if (row < rows()) { store(head, row, column, v.x); }
    if (row + APART < rows()) { store(head, row + APART, column, v.y); }
    if (row + 2u * APART < rows()) { store(head, row + 2u * APART, column, v.z); }
    if (row + 3u * APART < rows()) { store(head, row + 3u * APART, column, v.w); }
}

fn store_sums(head: u32, row: u32, v: vec4f) {
    if (row < rows()) { store_lse(head, row, v.x); }
    if (row + APART < rows()) { store_lse(head, row + APART, v.y); }
    if (row + 2u * APART < rows()) { store_lse(head, row + 2u * APART, v.z); }
    if (row + 3u * APART < rows()) { store_lse(head, row + 3u * APART, v.w); }
}

// Four features of four rows, each vector one feature.
fn store_rows(head: u32, row: u32, column: u32, v0: vec4f, v1: vec4f, v2: vec4f, v3: vec4f) {
    if (row < rows()) { store(head, row, column, vec4f(v0.x, v1.x, v2.x, v3.x)); }
    if (row + APART < rows()) { store(head, row + APART, column, vec4f(v0.y, v1.y, v2.y, v3.y)); }
    if (row + 2u * APART < rows()) { store(head, row + 2u * APART, column, vec4f(v0.z, v1.z, v2.z, v3.z)); }
    if (row + 3u * APART < rows()) { store(head, row + 3u * APART, column, vec4f(v0.w, v1.w, v2.w, v3.w)); }
}

// Puts four steps of a group of four rows into tile_x, turned so that lanes are rows. Rows of workgroup memory are turned by
// their step, so that neither the invocations that write it nor those that read it meet in a bank.
fn put_rows(n: u32, quad: u32, v0: vec4f, v1: vec4f, v2: vec4f, v3: vec4f) {
    let to = quad * 128u + (n ^ quad);
    tile_x[to] = vec4f(v0.x, v1.x, v2.x, v3.x);
    tile_x[to + 32u] = vec4f(v0.y, v1.y, v2.y, v3.y);
    tile_x[to + 64u] = vec4f(v0.z, v1.z, v2.z, v3.z);
    tile_x[to + 96u] = vec4f(v0.w, v1.w, v2.w, v3.w);
}

// The same of a group of columns, into tile_y.
fn put_columns(m: u32, quad: u32, v0: vec4f, v1: vec4f, v2: vec4f, v3: vec4f) {
    let to = quad * 64u + (m ^ quad);
    tile_y[to] = vec4f(v0.x, v1.x, v2.x, v3.x);
    tile_y[to + 16u] = vec4f(v0.y, v1.y, v2.y, v3.y);
    tile_y[to + 32u] = vec4f(v0.z, v1.z, v2.z, v3.z);
    tile_y[to + 48u] = vec4f(v0.w, v1.w, v2.w, v3.w);
}

fn x_or_zeros(start: u32, row: u32, step: u32) -> vec4f {
    if (row >= rows() || step >= DEPTH_QUADS) { return vec4f(); }
    return x_at(start, row, step);
}

fn y_or_zeros(start: u32, row: u32, step: u32) -> vec4f {
    if (row >= columns() || step >= DEPTH_QUADS) { return vec4f(); }
    return y_at(start, row, step);
}
