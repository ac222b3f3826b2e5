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
