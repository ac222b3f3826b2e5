// A lane's share of a row: HELD vectors in registers, the k-th of them number lane + k LANES of the row's. The members are
// named, as NVIDIA's compiler keeps arrays in memory unless all loops over them are unrolled.
struct Held {
    a: vec4f, b: vec4f, c: vec4f, d: vec4f, e: vec4f, f: vec4f, g: vec4f, h: vec4f,
}

// The row's numbers; vectors that are not held, and elements behind the row's end, are outside().
fn hold(row: u32, lane: u32) -> Held {
    let none = outside();
    var v = Held(fetch(row, lane), none, none, none, none, none, none, none);
    if (HELD > 1u) {
        v.b = fetch(row, lane + LANES);
    }
    if (HELD > 2u) {
        v.c = fetch(row, lane + 2u * LANES);
        v.d = fetch(row, lane + 3u * LANES);
    }
    if (HELD > 4u) {
        v.e = fetch(row, lane + 4u * LANES);
        v.f = fetch(row, lane + 5u * LANES);
        v.g = fetch(row, lane + 6u * LANES);
        v.h = fetch(row, lane + 7u * LANES);
    }
    return v;
}

fn held_put(row: u32, lane: u32, v: Held) {
    put(row, lane, v.a);
    if (HELD > 1u) {
        put(row, lane + LANES, v.b);
    }
    if (HELD > 2u) {
        put(row, lane + 2u * LANES, v.c);
        put(row, lane + 3u * LANES, v.d);
    }
    if (HELD > 4u) {
        put(row, lane + 4u * LANES, v.e);
        put(row, lane + 5u * LANES, v.f);
        put(row, lane + 6u * LANES, v.g);
        put(row, lane + 7u * LANES, v.h);
    }
}

// 1 where elements are within the row, 0 behind its end.
fn within(q: u32) -> vec4f {
    return select(vec4f(), vec4f(1.0), vec4u(4u * q) + vec4u(0u, 1u, 2u, 3u) < vec4u(length()));
}

// The elements less x; 0 behind the row's end.
fn held_less(v: Held, x: f32, lane: u32) -> Held {
    var out = Held();
    out.a = (v.a - x) * within(lane);
    if (HELD > 1u) {
        out.b = (v.b - x) * within(lane + LANES);
    }
    if (HELD > 2u) {
        out.c = (v.c - x) * within(lane + 2u * LANES);
        out.d = (v.d - x) * within(lane + 3u * LANES);
    }
    if (HELD > 4u) {
        out.e = (v.e - x) * within(lane + 4u * LANES);
        out.f = (v.f - x) * within(lane + 5u * LANES);
        out.g = (v.g - x) * within(lane + 6u * LANES);
        out.h = (v.h - x) * within(lane + 7u * LANES);
    }
    return out;
}

// a u + b v + c
fn held_blend(a: f32, u: Held, b: f32, v: Held, c: f32) -> Held {
    return Held(a * u.a + b * v.a + c, a * u.b + b * v.b + c, a * u.c + b * v.c + c, a * u.d + b * v.d + c,
        a * u.e + b * v.e + c, a * u.f + b * v.f + c, a * u.g + b * v.g + c, a * u.h + b * v.h + c);
}

fn held_sum(v: Held) -> f32 {
    return dot((v.a + v.b) + (v.c + v.d) + ((v.e + v.f) + (v.g + v.h)), vec4f(1.0));
}

fn held_dot(u: Held, v: Held) -> f32 {
    let low = u.a * v.a + u.b * v.b + (u.c * v.c + u.d * v.d);
    return dot(low + (u.e * v.e + u.f * v.f + (u.g * v.g + u.h * v.h)), vec4f(1.0));
}

fn max_nan4(u: vec4f, v: vec4f) -> vec4f {
    return vec4f(max_nan(u.x, v.x), max_nan(u.y, v.y), max_nan(u.z, v.z), max_nan(u.w, v.w));
}

fn largest(v: vec4f) -> f32 {
    return max_nan(max_nan(v.x, v.y), max_nan(v.z, v.w));
}

fn held_max(v: Held) -> f32 {
    let low = max_nan4(max_nan4(v.a, v.b), max_nan4(v.c, v.d));
    if (HELD > 4u) {
        return largest(max_nan4(low, max_nan4(max_nan4(v.e, v.f), max_nan4(v.g, v.h))));
    }
    return largest(low);
}

// The sum of what LANES neighbouring invocations give, in all of them. Two short serial sums take fewer barriers than a tree.
fn lanes_sum(local: u32, v: f32) -> f32 {
    let base = local - local % LANES;
    var width = LANES;
    shared_value[local] = v;
    workgroupBarrier();
    if (LANES > 16u) {
        var part = 0.0;
        for (var k = local % 16u; k < LANES; k += 16u) {
            part += shared_value[base + k];
        }
        workgroupBarrier();
        if (local - base < 16u) {
            shared_value[local] = part;
        }
        workgroupBarrier();
        width = 16u;
    }
    var total = 0.0;
    for (var k = 0u; k < width; k++) {
        total += shared_value[base + k];
    }
    workgroupBarrier();
    return total;
}

// Likewise the largest; NaN if one is.
fn lanes_max(local: u32, v: f32) -> f32 {
    let base = local - local % LANES;
    var width = LANES;
    shared_value[local] = v;
    workgroupBarrier();
    if (LANES > 16u) {
        var part = v;
        for (var k = local % 16u; k < LANES; k += 16u) {
            part = max_nan(part, shared_value[base + k]);
        }
        workgroupBarrier();
        if (local - base < 16u) {
            shared_value[local] = part;
        }
        workgroupBarrier();
        width = 16u;
    }
    var top = shared_value[base];
    for (var k = 1u; k < width; k++) {
        top = max_nan(top, shared_value[base + k]);
    }
    workgroupBarrier();
    return top;
}

fn exp_nan4(v: vec4f) -> vec4f {
    return vec4f(exp_nan(v.x), exp_nan(v.y), exp_nan(v.z), exp_nan(v.w));
}

// exp(v - top)
fn held_exp(v: Held, top: f32) -> Held {
    var e = Held();
    e.a = exp_nan4(v.a - top);
    if (HELD > 1u) {
        e.b = exp_nan4(v.b - top);
    }
    if (HELD > 2u) {
        e.c = exp_nan4(v.c - top);
        e.d = exp_nan4(v.d - top);
    }
    if (HELD > 4u) {
        e.e = exp_nan4(v.e - top);
        e.f = exp_nan4(v.f - top);
        e.g = exp_nan4(v.g - top);
        e.h = exp_nan4(v.h - top);
    }
    return e;
}

// What exponents are taken relative to: the largest element, or 0 as long as all are -inf.
fn finite_base(top: f32) -> f32 {
    return select(top, 0.0, top == -infinity());
}

// The elements less x.
fn held_minus(v: Held, x: f32) -> Held {
    return Held(v.a - x, v.b - x, v.c - x, v.d - x, v.e - x, v.f - x, v.g - x, v.h - x);
}
