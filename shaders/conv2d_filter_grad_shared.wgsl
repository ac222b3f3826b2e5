// One workgroup computes 12 weights of one filter over one slice of the batch's pixels: its invocations take neighbouring
// pixels, and add up through workgroup memory, in order. Slices are summed later. The variant for groups of one or two output
// channels. With SUMS it also sums the gradient itself, which is that of the bias.
// needs: WORKGROUP, KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, PADDED, SUMS, items, pixels_per_slice,
// slice_size, sums_start, pixels, height, width, out_h, out_w, pad_top, pad_left, in_channels, out_channels, group_in,
// group_out, columns, column_blocks

var<workgroup> shared_sums: array<vec4f, 4u * WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3u,
    @builtin(num_workgroups) groups: vec3u,
    @builtin(local_invocation_index) local: u32,
) {
    let i = group.x + group.y * groups.x;
    if (i >= items()) {
        return;
    }
    let column = (i % column_blocks()) * 12u;
    let o = (i / column_blocks()) % out_channels();
    let slice = i / (column_blocks() * out_channels());
    let in_group = o / group_out();
    let plane = out_h() * out_w();
    let t0 = window_tap(column, in_group); let t1 = window_tap(column + 1u, in_group);
    let t2 = window_tap(column + 2u, in_group); let t3 = window_tap(column + 3u, in_group);
    let t4 = window_tap(column + 4u, in_group); let t5 = window_tap(column + 5u, in_group);
    let t6 = window_tap(column + 6u, in_group); let t7 = window_tap(column + 7u, in_group);
    let t8 = window_tap(column + 8u, in_group); let t9 = window_tap(column + 9u, in_group);
    let t10 = window_tap(column + 10u, in_group); let t11 = window_tap(column + 11u, in_group);
    var low = vec4f();
    var middle = vec4f();
    var high = vec4f();
    var total = 0.0;
    let last = min((slice + 1u) * pixels_per_slice(), pixels());
    for (var p = slice * pixels_per_slice() + local; p < last; p += WORKGROUP) {
        let image = p / plane;
        let rest = p % plane;
        let y = (rest / out_w()) * STRIDE_H - pad_top();
        let x = (rest % out_w()) * STRIDE_W - pad_left();
        let base = vec3u((image * in_channels() * height() + y) * width() + x, y, x);
        let g = grad[(image * out_channels() + o) * plane + rest];
        low += g * vec4f(window_pixel(base, t0), window_pixel(base, t1), window_pixel(base, t2), window_pixel(base, t3));
        middle += g * vec4f(window_pixel(base, t4), window_pixel(base, t5), window_pixel(base, t6), window_pixel(base, t7));
        high += g * vec4f(window_pixel(base, t8), window_pixel(base, t9), window_pixel(base, t10), window_pixel(base, t11));
        if (SUMS) {
            total += g;
        }
    }
    shared_sums[local] = low;
    shared_sums[WORKGROUP + local] = middle;
    shared_sums[2u * WORKGROUP + local] = high;
    shared_sums[3u * WORKGROUP + local] = vec4f(total, 0.0, 0.0, 0.0);
    workgroupBarrier();
    for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
        if (local < half) {
            for (var k = 0u; k < 4u; k++) {
                shared_sums[k * WORKGROUP + local] += shared_sums[k * WORKGROUP + local + half];
            }
        }
        workgroupBarrier();
    }
    let to = slice * slice_size();
    if (local < 12u && column + local < columns()) {
        out[to + o * columns() + column + local] = shared_sums[local / 4u * WORKGROUP][local % 4u];
    }
    if (SUMS && local == 0u && column == 0u) {
        out[to + sums_start() + o] = shared_sums[3u * WORKGROUP].x;
    }
}
