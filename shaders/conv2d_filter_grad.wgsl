// One invocation computes up to 8 neighbouring weights, in a row of one filter, over one slice of the batch's rows, long
// ones cut into parts; slices are summed later, in order. The variant for groups of one or two output channels. With
// SUMS it also sums the gradient itself, which is that of the bias.
// needs: WORKGROUP, KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, SUMS, items, parts_per_slice,
// slice_size, sums_start, parts, parts_per_row, part_size, height, width, out_h, out_w, pad_top, pad_left, in_channels,
// out_channels, group_in, group_out

const WIDE = KERNEL_W > 4u;
const PARTS = (KERNEL_W + 7u) / 8u;
const SLIDES = STRIDE_W == DILATION_W;

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
    let kx = (i % PARTS) * 8u;
    let ky = (i / PARTS) % KERNEL_H;
    let c = (i / (PARTS * KERNEL_H)) % group_in();
    let o = (i / (PARTS * KERNEL_H * group_in())) % out_channels();
    let slice = i / (PARTS * KERNEL_H * group_in() * out_channels());
    let channel = o / group_out() * group_in() + c;
    let last = min((slice + 1u) * parts_per_slice(), parts());
    var low = vec4f();
    var high = vec4f();
    var total = 0.0;
    for (var part = slice * parts_per_slice(); part < last; part++) {
        let row = part / parts_per_row();
        let first = part % parts_per_row() * part_size();
        let end = min(first + part_size(), out_w());
        let image = row / out_h();
        let oy = row % out_h();
        let y = oy * STRIDE_H + ky * DILATION_H - pad_top();
        // Where the row starts, and how many elements it has.
        let line = vec2u(((image * in_channels() + channel) * height() + y) * width(), select(0u, width(), y < height()));
        let from_g = ((image * out_channels() + o) * out_h() + oy) * out_w();
        var x = first * STRIDE_W + kx * DILATION_W - pad_left();
        var x_low = vec4f();
        var x_high = vec4f();
        for (var ox = first; ox < end; ox++) {
            if (SLIDES && ox > first) {
                if (WIDE) {
                    x_low = vec4f(x_low.yzw, x_high.x);
                    x_high = vec4f(x_high.yzw, pixel(line, x + 7u * DILATION_W));
                } else {
                    x_low = vec4f(x_low.yzw, pixel(line, x + 3u * DILATION_W));
                }
            } else {
                x_low = four(line, x, 0u);
                if (WIDE) {
                    x_high = four(line, x, 4u);
                }
            }
            let g = grad[from_g + ox];
            low += g * x_low;
            if (WIDE) {
                high += g * x_high;
            }
            if (SUMS) {
                total += g;
            }
            x += STRIDE_W;
        }
    }
    let to = slice * slice_size() + ((o * group_in() + c) * KERNEL_H + ky) * KERNEL_W + kx;
    store_up_to(KERNEL_W - kx, to, low, high);
    if (SUMS && kx + ky + c == 0u) {
        out[slice * slice_size() + sums_start() + o] = total;
    }
}

// The element of a line (where it starts, how many it has) at x, or 0 in the padding.
fn pixel(line: vec2u, x: u32) -> f32 {
    let inside = x < line.y;
    return select(0.0, source[select(0u, line.x + x, inside)], inside);
}

// The elements under the weights n to n + 3; those that no filter is wide enough for are left out.
fn four(line: vec2u, x: u32, n: u32) -> vec4f {
    var v = vec4f(pixel(line, x + n * DILATION_W), 0.0, 0.0, 0.0);
    if (SLIDES || KERNEL_W > n + 1u) { v.y = pixel(line, x + (n + 1u) * DILATION_W); }
    if (SLIDES || KERNEL_W > n + 2u) { v.z = pixel(line, x + (n + 2u) * DILATION_W); }
    if (SLIDES || KERNEL_W > n + 3u) { v.w = pixel(line, x + (n + 3u) * DILATION_W); }
    return v;
}
