// One invocation multiplies and adds in registers alone, in 32 independent chains: what a device computes at the most.
// needs: WORKGROUP, items, turns

fn start_of(chain: u32) -> vec4f {
    let first = f32(4u * chain);
    return vec4f(first, first + 1.0, first + 2.0, first + 3.0);
}

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
    // Factors come from memory, as a compiler would fold those that it knows.
    let m = vec4f(source[0]);
    let s = vec4f(source[1] + f32(i));
    // NOTE: variables by name: an array that a loop indexes lies in memory on some drivers.
    var a = start_of(0u);
    var b = start_of(1u);
    var c = start_of(2u);
    var d = start_of(3u);
    var e = start_of(4u);
    var f = start_of(5u);
    var g = start_of(6u);
    var h = start_of(7u);
    for (var t = 0u; t < turns(); t++) {
        a = fma(a, m, s);
        b = fma(b, m, s);
        c = fma(c, m, s);
        d = fma(d, m, s);
        e = fma(e, m, s);
        f = fma(f, m, s);
        g = fma(g, m, s);
        h = fma(h, m, s);
        a = fma(a, m, s);
        b = fma(b, m, s);
        c = fma(c, m, s);
        d = fma(d, m, s);
        e = fma(e, m, s);
        f = fma(f, m, s);
        g = fma(g, m, s);
        h = fma(h, m, s);
    }
    let total = ((a + b) + (c + d)) + ((e + f) + (g + h));
    out[i] = (total.x + total.y) + (total.z + total.w);
}
