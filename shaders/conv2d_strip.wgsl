// One invocation computes 8 pixels in a line of one output channel: the variant for groups of one or two output channels, as
// depthwise convolutions have. Lines go along one axis, neighbours lie side by side across it; pixels that two windows share
// are loaded once where the windows slide by their own step.
// needs: WORKGROUP, KERNEL_ALONG, KERNEL_ACROSS, STRIDE_ALONG, STRIDE_ACROSS, DILATION_ALONG, DILATION_ACROSS, items, strips,
// out_along, out_across, out_step_along, out_step_across, along, across, step_along, step_across, pad_along, pad_across,
// in_channels, out_channels, group_in, group_out, weight_row, weight_tap, initial, finish

const SLIDES = STRIDE_ALONG == DILATION_ALONG;

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
    let a = i % out_across();
    let first = ((i / out_across()) % strips()) * 8u;
    let plane = i / (out_across() * strips());  // of an image and a channel
    let o = plane % out_channels();
    let in_group = o / group_out();
    let row = weight_row(o);
    let start = first * STRIDE_ALONG - pad_along();
    var channel = (plane / out_channels() * in_channels() + in_group * group_in()) * along() * across();
    var low = vec4f(initial(o));
    var high = low;
    for (var c = 0u; c < group_in(); c++) {
        for (var j = 0u; j < KERNEL_ACROSS; j++) {
            let x = a * STRIDE_ACROSS + j * DILATION_ACROSS - pad_across();
            let line = vec2u(channel + x * step_across(), select(0u, along(), x < across()));
            var x_low: vec4f;
            var x_high: vec4f;
            for (var k = 0u; k < KERNEL_ALONG; k++) {
                let y = start + k * DILATION_ALONG;
                if (SLIDES && k > 0u) {
                    x_low = vec4f(x_low.yzw, x_high.x);
                    x_high = vec4f(x_high.yzw, pixel(line, y + 7u * STRIDE_ALONG));
                } else {
                    x_low = vec4f(
                        pixel(line, y),
                        pixel(line, y + STRIDE_ALONG),
                        pixel(line, y + 2u * STRIDE_ALONG),
                        pixel(line, y + 3u * STRIDE_ALONG),
                    );
                    x_high = vec4f(
                        pixel(line, y + 4u * STRIDE_ALONG),
                        pixel(line, y + 5u * STRIDE_ALONG),
                        pixel(line, y + 6u * STRIDE_ALONG),
                        pixel(line, y + 7u * STRIDE_ALONG),
                    );
                }
                let w = weight[row + weight_tap(c, k, j)];
                low += w * x_low;
                high += w * x_high;
            }
        }
        channel += along() * across();
    }
    let to = plane * out_along() * out_across() + a * out_step_across();
    put(to, first, low.x);
    put(to, first + 1u, low.y);
    put(to, first + 2u, low.z);
    put(to, first + 3u, low.w);
    put(to, first + 4u, high.x);
    put(to, first + 5u, high.y);
    put(to, first + 6u, high.z);
    put(to, first + 7u, high.w);
}

// The element of a line (where it starts, how many it has) at y, or 0 in the padding.
fn pixel(line: vec2u, y: u32) -> f32 {
    let inside = y < line.y;
    return select(0.0, source[select(0u, line.x + y * step_along(), inside)], inside);
}

fn put(to: u32, y: u32, v: f32) {
    if (y < out_along()) {
        let at = to + y * out_step_along();
        out[at] = finish(at, v);
    }
}
