// Words whose order as unsigned numbers is that of elements: -0 is as good as 0, and every NaN comes after all numbers.
fn order_of_f(x: f32) -> u32 {
    let word = bitcast<u32>(x);
    if (is_nan(x)) { return 0xffffffffu; }
    if ((word << 1u) == 0u) { return 0x80000000u; }
    return select(word | 0x80000000u, ~word, (word >> 31u) == 1u);
}

fn order_of_i(x: i32) -> u32 {
    return bitcast<u32>(x) ^ 0x80000000u;
}
