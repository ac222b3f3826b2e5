// exp(x) for x of 0 or less, of four rows at once: 0 where it would be no normal number, as some drivers' exp(-inf) is
// not 0; NaN stays NaN.
fn exp_weights(x: vec4f) -> vec4f {
    let y = select(exp(x), vec4f(), x < vec4f(-87.0));
    return select(y, x, (bitcast<vec4u>(x) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
}

// What scores are shifted by for a row whose largest is x: nothing as long as it has seen none but -inf.
fn finite_shift(x: vec4f) -> vec4f {
    return select(x, vec4f(), x == vec4f(-infinity()));
}
