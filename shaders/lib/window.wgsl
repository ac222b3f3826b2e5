// The upper left corner of the window of pixel p, pixels being counted through the batch: its place in memory, its row and
// its column, which may lie in the padding; all wrap around below 0. Pixels beyond the last one stand in for it.
fn window_corner(p: u32) -> vec3u {
    let q = min(p, pixels() - 1u);
    let image = q / out_hw();
    let rest = q % out_hw();
    let y = (rest / out_w()) * STRIDE_H - pad_top();
    let x = (rest % out_w()) * STRIDE_W - pad_left();
    return vec3u((image * in_channels() * height() + y) * width() + x, y, x);
}

// A weight's distance from its window's upper left corner: in memory, in rows, in columns. A column is one weight of a filter:
// channel, row, column; those beyond the last stand in for it.
fn window_tap(column: u32, in_group: u32) -> vec3u {
    let k = min(column, columns() - 1u);
    let c = in_group * group_in() + k / (KERNEL_H * KERNEL_W);
    let dy = ((k / KERNEL_W) % KERNEL_H) * DILATION_H;
    let dx = (k % KERNEL_W) * DILATION_W;
    return vec3u((c * height() + dy) * width() + dx, dy, dx);
}

// The element at a distance from a corner, or 0 in the padding.
fn window_pixel(corner: vec3u, distance: vec3u) -> f32 {
    let at = corner.x + distance.x;
    if (PADDED) {
        let inside = corner.y + distance.y < height() && corner.z + distance.z < width();
        return select(0.0, source[select(0u, at, inside)], inside);
    }
    return source[at];
}

// The same in three dimensions: place, slice, row, column.
fn volume_corner(p: u32) -> vec4u {
    let q = min(p, pixels() - 1u);
    let image = q / out_dhw();
    let rest = q % out_dhw();
    let z = (rest / (out_h() * out_w())) * STRIDE_D - pad_front();
    let y = ((rest / out_w()) % out_h()) * STRIDE_H - pad_top();
    let x = (rest % out_w()) * STRIDE_W - pad_left();
    return vec4u(((image * in_channels() * depth() + z) * height() + y) * width() + x, z, y, x);
}

fn volume_tap(column: u32, in_group: u32) -> vec4u {
    let k = min(column, columns() - 1u);
    let c = in_group * group_in() + k / (KERNEL_D * KERNEL_H * KERNEL_W);
    let dz = ((k / (KERNEL_H * KERNEL_W)) % KERNEL_D) * DILATION_D;
    let dy = ((k / KERNEL_W) % KERNEL_H) * DILATION_H;
    let dx = (k % KERNEL_W) * DILATION_W;
    return vec4u(((c * depth() + dz) * height() + dy) * width() + dx, dz, dy, dx);
}

fn volume_pixel(corner: vec4u, distance: vec4u) -> f32 {
    let at = corner + distance;
    if (PADDED) {
        let inside = at.y < depth() && at.z < height() && at.w < width();
        return select(0.0, source[select(0u, at.x, inside)], inside);
    }
    return source[at.x];
}

// The first weight of a window, along one axis, under which a pixel at y (padding included) may lie: y - k dilation must be a
// multiple of the stride, which the weights from it on by `step` = stride / gcd(stride, dilation) keep true. Past the
// end if there is none.
fn first_tap(y: u32, stride: u32, dilation: u32, step: u32) -> u32 {
    if (dilation == 1u) {
        return y % stride;
    }
    for (var k = 0u; k < step; k++) {
        if ((y + stride * dilation - k * dilation) % stride == 0u) {
            return k;
        }
    }
    return 0xffffffffu - step;
}

// Eight output channels of pixel p, from o on and before o_end; each channel has `area` pixels.
fn store_channels(p: u32, area: u32, o: u32, o_end: u32, low: vec4f, high: vec4f) {
    if (p >= pixels()) {
        return;
    }
    let to = ((p / area) * out_channels() + o) * area + p % area;
    out[to] = finish(to, low.x);
    if (o + 1u < o_end) { out[to + area] = finish(to + area, low.y); }
    if (o + 2u < o_end) { out[to + 2u * area] = finish(to + 2u * area, low.z); }
    if (o + 3u < o_end) { out[to + 3u * area] = finish(to + 3u * area, low.w); }
    if (o + 4u < o_end) { out[to + 4u * area] = finish(to + 4u * area, high.x); }
    if (o + 5u < o_end) { out[to + 5u * area] = finish(to + 5u * area, high.y); }
    if (o + 6u < o_end) { out[to + 6u * area] = finish(to + 6u * area, high.z); }
    if (o + 7u < o_end) { out[to + 7u * area] = finish(to + 7u * area, high.w); }
}

// Eight neighbours from `to` on, or as many as `count` leaves; one at least.
fn store_up_to(count: u32, to: u32, low: vec4f, high: vec4f) {
    out[to] = low.x;
    if (count > 1u) { out[to + 1u] = low.y; }
    if (count > 2u) { out[to + 2u] = low.z; }
    if (count > 3u) { out[to + 3u] = low.w; }
    if (count > 4u) { out[to + 4u] = high.x; }
    if (count > 5u) { out[to + 5u] = high.y; }
    if (count > 6u) { out[to + 6u] = high.z; }
    if (count > 7u) { out[to + 7u] = high.w; }
}
