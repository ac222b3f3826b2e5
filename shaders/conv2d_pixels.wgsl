// One invocation computes PIXELS pixels of 8 output channels: the variant for GPUs, which need many invocations more than
// many results of each. Pixels are counted through the whole batch, and neighbours compute neighbouring ones.
// needs: WORKGROUP, PIXELS, KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, PADDED, pixels, blocks, out_w,
// out_hw, height, width, pad_top, pad_left, in_channels, out_channels, group_in, group_out, group_blocks, weight_row,
// weight_tap, initial, finish

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let flat = group.x + group.y * groups.x;
    let block = flat % blocks();
    let p = (flat / blocks()) * (WORKGROUP * PIXELS) + local;
    if (p >= pixels()) {
        return;
    }
    let in_group = block / group_blocks();
    let o = in_group * group_out() + (block % group_blocks()) * 8u;
    let o_last = (in_group + 1u) * group_out() - 1u;
    let plane = height() * width();
    var rows: array<u32, 8>;
    var low: array<vec4f, PIXELS>;
    var high: array<vec4f, PIXELS>;
    var bases: array<vec3u, PIXELS>;
    for (var k = 0u; k < 8u; k++) {
        rows[k] = weight_row(min(o + k, o_last));
    }
    let first_low = vec4f(initial(o), initial(min(o + 1u, o_last)), initial(min(o + 2u, o_last)), initial(min(o + 3u, o_last)));
    let first_high = vec4f(
        initial(min(o + 4u, o_last)), initial(min(o + 5u, o_last)), initial(min(o + 6u, o_last)), initial(min(o + 7u, o_last)),
    );
    for (var j = 0u; j < PIXELS; j++) {
        bases[j] = corner(p + j * WORKGROUP);
        low[j] = first_low;
        high[j] = first_high;
    }
    for (var c = 0u; c < group_in(); c++) {
        let channel = (in_group * group_in() + c) * plane;
        for (var ky = 0u; ky < KERNEL_H; ky++) {
            for (var kx = 0u; kx < KERNEL_W; kx++) {
                let t = weight_tap(c, ky, kx);
                let w_low = vec4f(weight[rows[0] + t], weight[rows[1] + t], weight[rows[2] + t], weight[rows[3] + t]);
                let w_high = vec4f(weight[rows[4] + t], weight[rows[5] + t], weight[rows[6] + t], weight[rows[7] + t]);
                let dy = ky * DILATION_H;
                let dx = kx * DILATION_W;
                let tap = vec3u(channel + dy * width() + dx, dy, dx);
                for (var j = 0u; j < PIXELS; j++) {
                    let x = pixel(bases[j], tap);
                    low[j] += x * w_low;
                    high[j] += x * w_high;
                }
            }
        }
    }
    for (var j = 0u; j < PIXELS; j++) {
        store8(p + j * WORKGROUP, o, o_last, low[j], high[j]);
    }
}

// The window's upper left corner: its place in memory, its row and its column, which may lie in the padding; all
// wrap around below 0. Pixels beyond the last one stand in for it, and are not stored.
fn corner(p: u32) -> vec3u {
    let q = min(p, pixels() - 1u);
    let image = q / out_hw();
    let rest = q % out_hw();
    let y = (rest / out_w()) * STRIDE_H - pad_top();
    let x = (rest % out_w()) * STRIDE_W - pad_left();
    return vec3u((image * in_channels() * height() + y) * width() + x, y, x);
}

fn pixel(base: vec3u, tap: vec3u) -> f32 {
    let at = base.x + tap.x;
    if (PADDED) {
        let inside = base.y + tap.y < height() && base.z + tap.z < width();
        return select(0.0, source[select(0u, at, inside)], inside);
    }
    return source[at];
}

fn store8(p: u32, o: u32, o_last: u32, low: vec4f, high: vec4f) {
    if (p >= pixels()) {
        return;
    }
    let to = ((p / out_hw()) * out_channels() + o) * out_hw() + p % out_hw();
    for (var k = 0u; k < 8u; k++) {
        if (o + k <= o_last) {
            let at = to + k * out_hw();
            out[at] = finish(at, select(high[k & 3u], low[k & 3u], k < 4u));
        }
    }
}
