// One invocation computes one pixel of 8 channels of the input's gradient of a 3-d convolution: it gathers every window that
// saw the pixel. Any stride.
// needs: WORKGROUP, KERNEL_D, KERNEL_H, KERNEL_W, STRIDE_D, STRIDE_H, STRIDE_W, DILATION_D, DILATION_H, DILATION_W, STEP_D,
// STEP_H, STEP_W, items, blocks, depth, height, width, in_channels, out_d, out_h, out_w, out_channels, pad_front, pad_top,
// pad_left, group_in, group_out, group_blocks, finish

const TAPS = KERNEL_D * KERNEL_H * KERNEL_W;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = (group.x + group.y * groups.x) * WORKGROUP + local;
    if (i >= items()) {
        return;
    }
    let volume = depth() * height() * width();
    let place = i % volume;
    let block = (i / volume) % blocks();
    let image = i / (volume * blocks());
    let x = place % width() + pad_left();
    let y = (place / width()) % height() + pad_top();
    let z = place / (width() * height()) + pad_front();
    let in_group = block / group_blocks();
    let first = (block % group_blocks()) * 8u;  // of the group's channels
    let last = group_in() - 1u;
    let low = TAPS * vec4u(first, min(first + 1u, last), min(first + 2u, last), min(first + 3u, last));
    let high = TAPS * vec4u(min(first + 4u, last), min(first + 5u, last), min(first + 6u, last), min(first + 7u, last));
    let out_volume = out_d() * out_h() * out_w();
    let from_g = (image * out_channels() + in_group * group_out()) * out_volume;
    let from_w = in_group * group_out() * group_in() * TAPS;
    var l = vec4f();
    var h = vec4f();
    for (var kz = first_tap(z, STRIDE_D, DILATION_D, STEP_D); kz < KERNEL_D; kz += STEP_D) {
        let slice = z - kz * DILATION_D;
        for (var ky = first_tap(y, STRIDE_H, DILATION_H, STEP_H); ky < KERNEL_H; ky += STEP_H) {
            let row = y - ky * DILATION_H;
            for (var kx = first_tap(x, STRIDE_W, DILATION_W, STEP_W); kx < KERNEL_W; kx += STEP_W) {
                let column = x - kx * DILATION_W;
                // Beyond the gradient's end, or before its start, where the difference wraps around.
                if (slice >= out_d() * STRIDE_D || row >= out_h() * STRIDE_H || column >= out_w() * STRIDE_W) {
                    continue;
                }
                var at = from_g + ((slice / STRIDE_D) * out_h() + row / STRIDE_H) * out_w() + column / STRIDE_W;
                var tap = from_w + (kz * KERNEL_H + ky) * KERNEL_W + kx;
                for (var k = 0u; k < group_out(); k++) {
                    let g = source[at];
                    l += g * vec4f(weight[tap + low.x], weight[tap + low.y], weight[tap + low.z], weight[tap + low.w]);
                    h += g * vec4f(weight[tap + high.x], weight[tap + high.y], weight[tap + high.z], weight[tap + high.w]);
                    at += out_volume;
                    tap += group_in() * TAPS;
                }
            }
        }
    }
    let to = (image * in_channels() + in_group * group_in() + first) * volume + place;
    out[to] = finish(to, l.x);
    if (first + 1u <= last) { out[to + volume] = finish(to + volume, l.y); }
    if (first + 2u <= last) { out[to + 2u * volume] = finish(to + 2u * volume, l.z); }
    if (first + 3u <= last) { out[to + 3u * volume] = finish(to + 3u * volume, l.w); }
    if (first + 4u <= last) { out[to + 4u * volume] = finish(to + 4u * volume, h.x); }
    if (first + 5u <= last) { out[to + 5u * volume] = finish(to + 5u * volume, h.y); }
    if (first + 6u <= last) { out[to + 6u * volume] = finish(to + 6u * volume, h.z); }
    if (first + 7u <= last) { out[to + 7u * volume] = finish(to + 7u * volume, h.w); }
}
