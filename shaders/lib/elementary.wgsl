// Elementary functions that WGSL lacks or defines too loosely: from its arithmetic alone wherever an adapter's own function
// is not bound to be exact, so that errors are the same everywhere but for contracted products. `wgpu-nn bench accuracy`
// measures them. Polynomials are minimax fits by Lawson's iteration.

// exp(x): 2^k exp(r) with |r| <= log(2) / 2; NaN stays NaN.
fn exp_nan(x: f32) -> f32 {
    let t = clamp(x, -104.0, 89.0);
    let k = round(t * 1.44269504);
    return select(exp_scaled(t - k * 0.69140625 - k * 0.00174093056, k), x, is_nan(x));
}

// exp(x) / 2, which is finite a little longer than exp(x).
fn exp_half(x: f32) -> f32 {
    let t = clamp(x, -104.0, 90.0);
    let k = round(t * 1.44269504);
    return select(exp_scaled(t - k * 0.69140625 - k * 0.00174093056, k - 1.0), x, is_nan(x));
}

// 2^k exp(r) for |r| <= 0.36 and a whole k from -151 to 129; in two steps, as 2^k may be beyond f32.
fn exp_scaled(r: f32, k: f32) -> f32 {
    let p = r * r * (0.499999926 + r * (0.166665087 + r * (0.0416685283 + r * (0.00837013495 + r * 0.00138116623))));
    let low = i32(k) >> 1u;
    let high = i32(k) - low;
    return (1.0 + (r + p)) * bitcast<f32>(u32(low + 127) << 23u) * bitcast<f32>(u32(high + 127) << 23u);
}

// e and log(m) of x = 2^e m, m from sqrt(1 / 2) to sqrt(2), for x above 0 and finite.
fn log_parts(x: f32) -> vec2f {
    let tiny = x < 1.17549435e-38;
    let word = bitcast<u32>(select(x, x * 8388608.0, tiny));
    let above = (word & 0x7fffffu) > 0x3504f3u;
    let m = bitcast<f32>((word & 0x7fffffu) | select(0x3f800000u, 0x3f000000u, above));
    let f = m - 1.0;
    let u = f * f;
    let p = 0.333333314 + f * (-0.250008800 + f * (0.200013195 + f * (-0.166211898 + f * (0.141977975
        + f * (-0.131785498 + f * (0.128003606 - f * 0.0763358542))))));
    let e = i32(word >> 23u) - 127 + select(0, 1, above) - select(0, 23, tiny);
    return vec2f(f32(e), f + (f * u * p - 0.5 * u));
}

// log(x) with the limits of IEEE 754: -inf at 0, NaN below.
fn log_full(x: f32) -> f32 {
    if (is_nan(x) || x < 0.0) { return nan(); }
    if (x == 0.0) { return -infinity(); }
    if (is_inf(x)) { return x; }
    let parts = log_parts(x);
    return parts.x * 0.69140625 + (parts.y + parts.x * 0.00174093056);
}

// x as quarter turns of a circle, mod 4, and what is left: of (-pi / 4, pi / 4), in radians.
struct Turn { quarter: u32, rest: f32 }

fn turn_of(x: f32) -> Turn {
    let a = abs(x);
    if (a < 0.785398163) { return Turn(0u, x); }
    if (a < 8192.0) {
        // k times each of the first three parts of pi / 2, of 11 bits, is exact (Cody and Waite 1980).
        let k = round(x * 0.636619772);
        let rest = ((x - k * 1.5703125) - k * 0.000483751297) - k * 7.54953362e-8;
        return Turn(u32(i32(k)) & 3u, rest - k * 2.56334407e-12);
    }
    return turn_of_large(x);
}

// The bits of 2 / pi, behind 32 zeros.
fn two_over_pi(word: u32) -> u32 {
    switch word {
        case 1u: { return 0xa2f9836eu; }
        case 2u: { return 0x4e441529u; }
        case 3u: { return 0xfc2757d1u; }
        case 4u: { return 0xf534ddc0u; }
        case 5u: { return 0xdb629599u; }
        case 6u: { return 0x3c439041u; }
        case 7u: { return 0xfe5163abu; }
        default: { return 0u; }
    }
}

// 32 bits of 2 / pi from bit `start` on.
fn bits_of_two_over_pi(start: u32) -> u32 {
    let shift = start % 32u;
    let word = two_over_pi(start / 32u);
    if (shift == 0u) { return word; }
    return (word << shift) | (two_over_pi(start / 32u + 1u) >> (32u - shift));
}

// The high word of x y.
fn high_word(x: u32, y: u32) -> u32 {
    let a = x >> 16u;
    let b = x & 0xffffu;
    let c = y >> 16u;
    let d = y & 0xffffu;
    let middle = a * d + ((b * d) >> 16u);
    return a * c + (middle >> 16u) + ((b * c + (middle & 0xffffu)) >> 16u);
}

// As turn_of, for |x| of 8192 and more: x is a whole number of 24 bits times a power of two, and only those bits of 2 / pi
// count that bring it below four turns (Payne and Hanek 1983). 96 of them leave no cancellation that f32 can tell.
fn turn_of_large(x: f32) -> Turn {
    let word = bitcast<u32>(x);
    let exponent = (word >> 23u) & 255u;
    if (exponent == 255u) { return Turn(0u, nan()); }
    let n = (word & 0x7fffffu) | 0x800000u;
    let start = exponent - 120u;
    let b = bits_of_two_over_pi(start);
    let c = bits_of_two_over_pi(start + 32u);
    let d = bits_of_two_over_pi(start + 64u);
    let low = n * c + high_word(n, d);
    let carry = select(0u, 1u, low < n * c);
    let high = n * b + high_word(n, c) + carry;
    // The first two bits of 96 are the quarter, the rest a fraction of one; of more than half, the next is nearer.
    var f = (high << 2u) | (low >> 30u);
    var g = (low << 2u) | ((n * d) >> 30u);
    let up = f >= 0x80000000u;
    if (up) {
        f = ~f;
        g = ~g;
    }
    let zeros = min(countLeadingZeros(f), 31u);
    let first = select((f << zeros) | (g >> (32u - zeros)), f, zeros == 0u);
    let rest = f32(first) * bitcast<f32>((95u - zeros) << 23u) * 1.57079633;
    let negative = up != ((word >> 31u) == 1u);
    var quarter = (high >> 30u) + select(0u, 1u, up);
    quarter = select(quarter, 4u - quarter, (word >> 31u) == 1u);
    return Turn(quarter & 3u, select(rest, -rest, negative));
}

// sin(r) and cos(r) for |r| <= pi / 4.
fn sin_near(r: f32) -> f32 {
    let u = r * r;
    return select(r + r * u * (-0.166666542 + u * (0.00833213149 - u * 0.000195108387)), r, u < 1e-8);
}

fn cos_near(r: f32) -> f32 {
    let u = r * r;
    return 1.0 - (0.5 * u - u * u * (0.0416666457 + u * (-0.00138873060 + u * 2.44312045e-5)));
}

// sin(x) for x of any size; NaN of what is not finite.
fn sin_of(x: f32) -> f32 {
    let t = turn_of(x);
    let y = select(sin_near(t.rest), cos_near(t.rest), (t.quarter & 1u) == 1u);
    return select(select(y, -y, t.quarter >= 2u), t.rest, is_nan(t.rest));
}

fn cos_of(x: f32) -> f32 {
    let t = turn_of(x);
    let y = select(cos_near(t.rest), sin_near(t.rest), (t.quarter & 1u) == 1u);
    return select(select(y, -y, t.quarter == 1u || t.quarter == 2u), t.rest, is_nan(t.rest));
}

fn tan_of(x: f32) -> f32 {
    let t = turn_of(x);
    let s = sin_near(t.rest);
    let c = cos_near(t.rest);
    return select(select(s / c, -c / s, (t.quarter & 1u) == 1u), t.rest, is_nan(t.rest));
}

// exp(x) - 1; below 0.5 by a polynomial, 1e-7.
fn expm1_near(x: f32) -> f32 {
    let p = 1.0 + x * (0.5 + x * (0.166666677 + x * (0.0416666602 + x * (0.00833311908
        + x * (0.00138892763 + x * (0.000199789753 + x * 2.48014979e-5))))));
    return select(exp_nan(x) - 1.0, x * p, abs(x) < 0.5);
}

// log(exp(x) + exp(y)), which is the larger of the two if that is infinite.
fn log_add_exp(x: f32, y: f32) -> f32 {
    let top = max_nan(x, y);
    return select(top + log1p_near(exp_nan(min(x, y) - top)), top, is_inf(top) || is_nan(top));
}

// log(1 + x); near 0 by the series of 2 atanh(x / (2 + x)), 1e-7.
fn log1p_near(x: f32) -> f32 {
    let s = 2.0 * x / (2.0 + x);  // twice that of the series, as what is smaller than x may be flushed to 0
    let u = 0.25 * s * s;
    let series = s * (1.0 + u * (0.333333333 + u * (0.2 + u * (0.142857143 + u * (0.111111111 + u * 0.0909090909)))));
    if (abs(x) < 0.5) { return series; }
    return log_full(1.0 + x);
}

// tanh(x); below 0.625 by a polynomial, 1e-7; the exponential's argument is bounded, as some drivers return NaN beyond.
fn tanh_near(x: f32) -> f32 {
    let u = x * x;
    let p = 1.0 + u * (-0.333332605 + u * (0.133311275 + u * (-0.0537210666 + u * (0.0205909842 - u * 0.0056599848))));
    if (abs(x) < 0.625) { return x * p; }
    let t = 1.0 - 2.0 / (exp_nan(2.0 * min(abs(x), 15.0)) + 1.0);
    return select(select(t, -t, x < 0.0), x, is_nan(x));
}

// 1 / (1 + exp(-x)).
fn sigmoid_of(x: f32) -> f32 {
    let e = exp_nan(-min(abs(x), 100.0));
    let y = select(1.0 / (1.0 + e), e / (1.0 + e), x < 0.0);
    return select(y, x, is_nan(x));
}

// The error function; below 1 by a polynomial, 2e-7, beyond as 1 - erfc(x), erfc scaled by exp(x^2).
fn erf_of(x: f32) -> f32 {
    let u = x * x;
    let a = min(abs(x), 4.0);
    let p = 1.12837917 + u * (-0.376126258 + u * (0.112835851 + u * (-0.0268538119
        + u * (0.00518832756 + u * (-0.000801019252 + u * 7.85385769e-5)))));
    if (a < 1.0) { return x * p; }
    let s = 1.0 / (1.0 + 0.5 * a);
    let q = 0.000536601554 + s * (0.274512636 + s * (0.326122481 + s * (0.114382577
        + s * (0.383576711 + s * (-0.0408362585 - s * 0.0590779865)))));
    let y = 1.0 - q * exp_nan(-a * a);
    return select(select(y, -y, x < 0.0), x, is_nan(x));
}

// sinh(x); below 1 by a polynomial, 1e-7.
fn sinh_near(x: f32) -> f32 {
    let u = x * x;
    let p = 1.0 + u * (0.166666664 + u * (0.00833335259 + u * (0.000198358125 + u * 2.81852391e-6)));
    if (abs(x) < 1.0) { return x * p; }
    let e = exp_half(abs(x));
    let y = e - 0.25 / e;
    return select(select(y, -y, x < 0.0), x, is_nan(x));
}

fn cosh_full(x: f32) -> f32 {
    let e = exp_half(abs(x));
    return select(e + 0.25 / e, x, is_nan(x));
}

// atan(x) for x in [0, 1], 2e-7; folded at tan(pi / 8).
fn atan_unit(x: f32) -> f32 {
    let fold = x > 0.414213562;
    let t = select(x, (x - 1.0) / (x + 1.0), fold);
    let u = t * t;
    let p = t * (1.0 + u * (-0.333333076 + u * (0.199982169 + u * (-0.142400828 + u * (0.105734782 - u * 0.0603478659)))));
    return select(p, p + 0.785398163, fold);
}

fn atan_of(x: f32) -> f32 {
    let a = abs(x);
    let y = select(atan_unit(min(a, 1.0)), 1.57079633 - atan_unit(1.0 / max(a, 1.0)), a > 1.0);
    return select(select(y, -y, x < 0.0), x, is_nan(x));
}

// The angle of the point (x, y), in (-pi, pi]; infinities count as equal sides.
fn atan2_of(y: f32, x: f32) -> f32 {
    if (is_nan(x) || is_nan(y)) { return nan(); }
    let a = select(abs(x), select(0.0, 1.0, is_inf(x)), is_inf(x) || is_inf(y));
    let b = select(abs(y), select(0.0, 1.0, is_inf(y)), is_inf(x) || is_inf(y));
    let high = max(a, b);
    // WGSL promises quotients for divisors up to 2^126 only.
    let scale = select(1.0, 0x1p-64, high > 0x1p64);
    var t = select(atan_unit(min(a, b) * scale / (high * scale)), 0.0, high == 0.0);
    t = select(t, 1.57079633 - t, b > a);
    t = select(t, 3.14159265 - t, (bitcast<u32>(x) >> 31u) == 1u);
    return select(t, -t, (bitcast<u32>(y) >> 31u) == 1u);
}

fn asin_of(x: f32) -> f32 {
    if (is_nan(x) || abs(x) > 1.0) { return nan(); }
    return atan2_of(x, sqrt((1.0 - x) * (1.0 + x)));
}

fn acos_of(x: f32) -> f32 {
    if (is_nan(x) || abs(x) > 1.0) { return nan(); }
    return atan2_of(sqrt((1.0 - x) * (1.0 + x)), x);
}

// x to the power y with the cases of IEEE 754: negative bases take whole exponents, and anything to the 0 is 1.
fn pow_full(x: f32, y: f32) -> f32 {
    if (y == 0.0 || x == 1.0) { return 1.0; }
    if (is_nan(x) || is_nan(y)) { return nan(); }
    let a = abs(x);
    let whole = floor(y) == y;
    let odd = whole && abs(y) < 16777216.0 && (i32(clamp(y, -16777216.0, 16777216.0)) & 1) != 0;
    let negative = (bitcast<u32>(x) >> 31u) == 1u && odd;
    if (is_inf(y)) {
        if (a == 1.0) { return 1.0; }
        return select(0.0, infinity(), (a > 1.0) == (y > 0.0));
    }
    var r: f32;
    if (a == 0.0) {
        r = select(infinity(), 0.0, y > 0.0);
    } else if (is_inf(a)) {
        r = select(0.0, infinity(), y > 0.0);
    } else if (x < 0.0 && !whole) {
        return nan();
    } else {
        r = pow_of(a, y);
    }
    return select(r, -r, negative);
}

// a to the power y, for a above 0 and both finite: 2^(y e) 2^(y log2(m)) of a = 2^e m. Of y e nothing is lost, as the
// products with the two halves of y are exact.
fn pow_of(a: f32, y: f32) -> f32 {
    let parts = log_parts(a);
    let fraction = y * (parts.y * 1.44269502 + parts.y * 1.925963e-8);
    let p = y * parts.x + fraction;
    if (p >= 129.0) { return infinity(); }
    if (p <= -151.0) { return 0.0; }
    let k = round(p);
    let first = bitcast<f32>(bitcast<u32>(y) & 0xffffff00u);
    let rest = ((first * parts.x - k) + (y - first) * parts.x) + fraction;
    return exp_scaled(rest * 0.693147181, k);
}
