// Elementary functions that WGSL lacks or defines too loosely. Errors are relative, against float64, on top of those of
// the adapter's exp, log, sqrt, sin and cos. Polynomials are minimax fits by Lawson's iteration.

// exp(x); NaN stays NaN, which some drivers turn into infinity.
fn exp_nan(x: f32) -> f32 {
    return select(exp(x), x, is_nan(x));
}

// log(x) with the limits of IEEE 754: -inf at 0, NaN below.
fn log_full(x: f32) -> f32 {
    if (is_nan(x) || x < 0.0) { return nan(); }
    if (x == 0.0) { return -infinity(); }
    if (is_inf(x)) { return x; }
    return log(x);
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
    return select(top + log1p_near(exp(min(x, y) - top)), top, is_inf(top) || is_nan(top));
}

// log(1 + x); near 0 by the series of 2 atanh(x / (2 + x)), 1e-7.
fn log1p_near(x: f32) -> f32 {
    let s = x / (2.0 + x);
    let u = s * s;
    let series = 2.0 * s * (1.0 + u * (0.333333333 + u * (0.2 + u * (0.142857143 + u * (0.111111111 + u * 0.0909090909)))));
    if (abs(x) < 0.5) { return series; }
    return log_full(1.0 + x);
}

// tanh(x); below 0.625 by a polynomial, 1e-7; the exponential's argument is bounded, as some drivers return NaN beyond.
fn tanh_near(x: f32) -> f32 {
    let u = x * x;
    let p = 1.0 + u * (-0.333332605 + u * (0.133311275 + u * (-0.0537210666 + u * (0.0205909842 - u * 0.0056599848))));
    if (abs(x) < 0.625) { return x * p; }
    let t = 1.0 - 2.0 / (exp(2.0 * min(abs(x), 15.0)) + 1.0);
    return select(select(t, -t, x < 0.0), x, is_nan(x));
}

// 1 / (1 + exp(-x)).
fn sigmoid_of(x: f32) -> f32 {
    let e = exp(-min(abs(x), 100.0));
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
    let y = 1.0 - q * exp(-a * a);
    return select(select(y, -y, x < 0.0), x, is_nan(x));
}

// sinh(x); below 1 by a polynomial, 1e-7; exp(x / 2) is squared late so that nothing overflows early.
fn sinh_near(x: f32) -> f32 {
    let u = x * x;
    let p = 1.0 + u * (0.166666664 + u * (0.00833335259 + u * (0.000198358125 + u * 2.81852391e-6)));
    if (abs(x) < 1.0) { return x * p; }
    let e = exp(abs(x) * 0.5);
    let y = 0.5 * e * e - 0.5 / (e * e);
    return select(select(y, -y, x < 0.0), x, is_nan(x));
}

fn cosh_full(x: f32) -> f32 {
    let e = exp(abs(x) * 0.5);
    return select(0.5 * e * e + 0.5 / (e * e), x, is_nan(x));
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
    var t = select(atan_unit(min(a, b) / high), 0.0, high == 0.0);
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
        r = pow(a, y);
    }
    return select(r, -r, negative);
}
