// One invocation computes one pixel of 8 output channels: the variant for GPUs and little work, where many invocations count
// more than many results of each. A workgroup's weights lie in its memory. Pixels are counted through the whole batch.
// needs: WORKGROUP, KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, PADDED, pixels, blocks, out_w, out_hw,
// height, width, pad_top, pad_left, in_channels, out_channels, group_in, group_out, group_blocks, weight_row, weight_tap, initial, finish

const TAPS = KERNEL_H * KERNEL_W;
const CHANNELS = max(1u, 128u / TAPS);  // whose weights are in memory at a time
var<workgroup> weights: array<vec4f, 2u * CHANNELS * TAPS>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let flat = group.x + group.y * groups.x;
    let block = flat % blocks();
    let p = (flat / blocks()) * WORKGROUP + local;
    let in_group = block / group_blocks();
    let o = in_group * group_out() + (block % group_blocks()) * 8u;
    let o_end = (in_group + 1u) * group_out();
    let plane = height() * width();
    let base = window_corner(p);
    let o_last = o_end - 1u;
    let o1 = min(o + 1u, o_last); let o2 = min(o + 2u, o_last); let o3 = min(o + 3u, o_last); let o4 = min(o + 4u, o_last);
    let o5 = min(o + 5u, o_last); let o6 = min(o + 6u, o_last); let o7 = min(o + 7u, o_last);
    let w0 = weight_row(o); let w1 = weight_row(o1); let w2 = weight_row(o2); let w3 = weight_row(o3);
    let w4 = weight_row(o4); let w5 = weight_row(o5); let w6 = weight_row(o6); let w7 = weight_row(o7);
    let low = vec4f(initial(o), initial(o1), initial(o2), initial(o3));
    let high = vec4f(initial(o4), initial(o5), initial(o6), initial(o7));
    var l = low;
    var h = high;
    for (var first = 0u; first < group_in(); first += CHANNELS) {
        let count = min(CHANNELS, group_in() - first);
        for (var i = local; i < count * TAPS; i += WORKGROUP) {
            let t = weight_tap(first + i / TAPS, (i / KERNEL_W) % KERNEL_H, i % KERNEL_W);
            weights[2u * i] = vec4f(weight[w0 + t], weight[w1 + t], weight[w2 + t], weight[w3 + t]);
            weights[2u * i + 1u] = vec4f(weight[w4 + t], weight[w5 + t], weight[w6 + t], weight[w7 + t]);
        }
        workgroupBarrier();
        for (var c = 0u; c < count; c++) {
            let channel = (in_group * group_in() + first + c) * plane;
            for (var ky = 0u; ky < KERNEL_H; ky++) {
                for (var kx = 0u; kx < KERNEL_W; kx++) {
                    let at = 2u * ((c * KERNEL_H + ky) * KERNEL_W + kx);
                    let dy = ky * DILATION_H;
                    let dx = kx * DILATION_W;
                    let x = window_pixel(base, vec3u(channel + dy * width() + dx, dy, dx));
                    l += x * weights[at];
                    h += x * weights[at + 1u];
                }
            }
        }
        workgroupBarrier();
    }
    store_channels(p, out_hw(), o, o_end, l, h);
}
