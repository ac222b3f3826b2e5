// Whether x is NaN, by its bits: `x != x` is false for NaN on every Vulkan compiler tried.
fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

fn is_inf(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) == 0x7f800000u;
}

// Infinity; through a variable, as WGSL rejects constants that are not finite.
fn infinity() -> f32 {
    var word = 0x7f800000u;
    return bitcast<f32>(word);
}

fn nan() -> f32 {
    var word = 0x7fc00000u;
    return bitcast<f32>(word);
}

// WGSL's max, min, clamp and sign drop NaN; these carry it, as NumPy does.
fn max_nan(x: f32, y: f32) -> f32 {
    return select(max(x, y), select(y, x, is_nan(x)), is_nan(x) || is_nan(y));
}

fn min_nan(x: f32, y: f32) -> f32 {
    return select(min(x, y), select(y, x, is_nan(x)), is_nan(x) || is_nan(y));
}

fn relu_nan(x: f32) -> f32 {
    return select(max(x, 0.0), x, is_nan(x));
}

fn sign_nan(x: f32) -> f32 {
    return select(sign(x), x, is_nan(x));
}

// Comparisons that are false where either side is NaN.
fn equal_f(x: f32, y: f32) -> bool {
    return x == y && !is_nan(x) && !is_nan(y);
}

fn less_f(x: f32, y: f32) -> bool {
    return x < y && !is_nan(x) && !is_nan(y);
}

fn less_equal_f(x: f32, y: f32) -> bool {
    return x <= y && !is_nan(x) && !is_nan(y);
}

// Truncates toward zero; beyond i32 it saturates, and NaN becomes 0.
fn to_int(x: f32) -> i32 {
    if (is_nan(x)) { return 0; }
    if (x >= 2147483648.0) { return 2147483647; }
    if (x <= -2147483648.0) { return -2147483647 - 1; }
    return i32(x);
}

// Python's floor division and remainder: the remainder has the divisor's sign. Division by 0 gives 0 for Ints.
// NOTE: no %, which Vulkan leaves undefined for negative operands; an H100 takes that at its word.
fn floor_div_i(x: i32, y: i32) -> i32 {
    if (y == 0) { return 0; }
    let q = x / y;
    return select(q, q - 1, x - q * y != 0 && ((x < 0) != (y < 0)));
}

fn remainder_i(x: i32, y: i32) -> i32 {
    if (y == 0) { return 0; }
    let r = x - x / y * y;
    return select(r, r + y, r != 0 && ((r < 0) != (y < 0)));
}

// x rounded to half precision.
// NOTE: an H100's compiler takes unpacking of what was packed for nothing to do; so it must not see that this is that.
fn rounded_half(x: f32) -> f32 {
    return unpack2x16float(hidden(pack2x16float(vec2f(x, 0.0)))).x;
}

// x less the whole multiples of y, with the sign of x; within 2^-24 |x| of the exact one.
fn fmod_f(x: f32, y: f32) -> f32 {
    if (y == 0.0 || is_inf(x) || is_nan(x) || is_nan(y)) { return nan(); }
    if (is_inf(y)) { return x; }
    return x - y * trunc(x / y);
}

fn remainder_f(x: f32, y: f32) -> f32 {
    let r = fmod_f(x, y);
    return select(r, r + y, r != 0.0 && ((r < 0.0) != (y < 0.0)));
}

fn floor_div_f(x: f32, y: f32) -> f32 {
    if (y == 0.0) { return x / y; }
    if (is_inf(y) && !is_inf(x) && !is_nan(x)) { return select(0.0, -1.0, x != 0.0 && (x < 0.0) != (y < 0.0)); }
    if (is_inf(x)) { return nan(); }
    return floor(x / y);
}
