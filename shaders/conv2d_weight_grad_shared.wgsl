// One workgroup computes 8 output channels x 8 weights over one slice of the batch's pixels: its invocations take
// neighbouring pixels, and add up through workgroup memory, in order. Slices are summed later. With SUMS it also sums the
// gradient itself, which is that of the bias.
// needs: WORKGROUP, KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, DILATION_H, DILATION_W, PADDED, SUMS, items, pixels_per_slice,
// slice_size, sums_start, pixels, height, width, out_h, out_w, pad_top, pad_left, in_channels, out_channels, group_in,
// group_out, group_blocks, columns, column_blocks

const CHUNK = 8u;
var<workgroup> shared_sums: array<vec4f, WORKGROUP * CHUNK>;

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
    let column = (i % column_blocks()) * 8u;
    let blocks = out_channels() / group_out() * group_blocks();
    let block = (i / column_blocks()) % blocks;
    let slice = i / (column_blocks() * blocks);
    let in_group = block / group_blocks();
    let o = in_group * group_out() + (block % group_blocks()) * 8u;
    let o_last = (in_group + 1u) * group_out() - 1u;
    let plane = out_h() * out_w();
    var taps: array<vec3u, 8>;
    var rows: array<u32, 8>;
    var acc: array<vec4f, 18>;
    for (var k = 0u; k < 8u; k++) {
        taps[k] = tap(column + k, in_group);
        rows[k] = min(o + k, o_last) * plane;
    }
    for (var k = 0u; k < 18u; k++) {
        acc[k] = vec4f();
    }
    let last = min((slice + 1u) * pixels_per_slice(), pixels());
    for (var p = slice * pixels_per_slice() + local; p < last; p += WORKGROUP) {
        let image = p / plane;
        let rest = p % plane;
        let y = (rest / out_w()) * STRIDE_H - pad_top();
        let x = (rest % out_w()) * STRIDE_W - pad_left();
        let base = vec3u((image * in_channels() * height() + y) * width() + x, y, x);
        let low = vec4f(pixel(base, taps[0]), pixel(base, taps[1]), pixel(base, taps[2]), pixel(base, taps[3]));
        let high = vec4f(pixel(base, taps[4]), pixel(base, taps[5]), pixel(base, taps[6]), pixel(base, taps[7]));
        let at = image * out_channels() * plane + rest;
        var g: array<f32, 8>;
        for (var k = 0u; k < 8u; k++) {
            g[k] = grad[at + rows[k]];
            acc[2u * k] += g[k] * low;
            acc[2u * k + 1u] += g[k] * high;
        }
        if (SUMS) {
            acc[16] += vec4f(g[0], g[1], g[2], g[3]);
            acc[17] += vec4f(g[4], g[5], g[6], g[7]);
        }
    }
    // The workgroup's sums, CHUNK of the vectors at a time, so that they fit into 16 KiB for 64 invocations.
    let to = slice * slice_size();
    for (var first = 0u; first < select(16u, 24u, SUMS); first += CHUNK) {
        for (var k = 0u; k < CHUNK; k++) {
            shared_sums[k * WORKGROUP + local] = select(vec4f(), acc[min(first + k, 17u)], first + k < 18u);
        }
        workgroupBarrier();
        for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
            if (local < half) {
                for (var k = 0u; k < CHUNK; k++) {
                    shared_sums[k * WORKGROUP + local] += shared_sums[k * WORKGROUP + local + half];
                }
            }
            workgroupBarrier();
        }
        if (local < CHUNK) {
            store4(to, first + local, o, o_last, column, shared_sums[local * WORKGROUP]);
        }
        workgroupBarrier();
    }
}

// Stores vector k: weights (k even: the first four, odd: the last four) of channel o + k / 2; from 16 on, bias gradients.
fn store4(to: u32, k: u32, o: u32, o_last: u32, column: u32, v: vec4f) {
    if (k >= 16u) {
        let channel = o + (k - 16u) * 4u;
        for (var j = 0u; j < 4u; j++) {
            if (k < 18u && column == 0u && channel + j <= o_last) {
                out[to + sums_start() + channel + j] = v[j];
            }
        }
        return;
    }
    let channel = o + k / 2u;
    let first = column + (k % 2u) * 4u;
    for (var j = 0u; j < 4u; j++) {
        if (channel <= o_last && first + j < columns()) {
            out[to + channel * columns() + first + j] = v[j];
        }
    }
}

// A tap's distance from its window's upper left corner: in memory, in rows, in columns. Columns beyond the last stand in
// for it.
fn tap(column: u32, in_group: u32) -> vec3u {
    let k = min(column, columns() - 1u);
    let c = in_group * group_in() + k / (KERNEL_H * KERNEL_W);
    let dy = ((k / KERNEL_W) % KERNEL_H) * DILATION_H;
    let dx = (k % KERNEL_W) * DILATION_W;
    return vec3u((c * height() + dy) * width() + dx, dy, dx);
}

fn pixel(base: vec3u, t: vec3u) -> f32 {
    let at = base.x + t.x;
    if (PADDED) {
        let inside = base.y + t.y < height() && base.z + t.z < width();
        return select(0.0, source[select(0u, at, inside)], inside);
    }
    return source[at];
}
