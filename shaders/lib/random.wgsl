// Threefry-2x32 with 13 rounds (Salmon et al. 2011): two random words from a key and a counter.
fn threefry(key0: u32, key1: u32, counter: u32) -> vec2u {
    let key2 = 0x1BD11BDAu ^ key0 ^ key1;
    var x = counter + key0;
    var y = key1;
    x += y; y = ((y << 13u) | (y >> 19u)) ^ x;
    x += y; y = ((y << 15u) | (y >> 17u)) ^ x;
    x += y; y = ((y << 26u) | (y >> 6u)) ^ x;
    x += y; y = ((y << 6u) | (y >> 26u)) ^ x;
    x += key1; y += key2 + 1u;
    x += y; y = ((y << 17u) | (y >> 15u)) ^ x;
    x += y; y = ((y << 29u) | (y >> 3u)) ^ x;
    x += y; y = ((y << 16u) | (y >> 16u)) ^ x;
    x += y; y = ((y << 24u) | (y >> 8u)) ^ x;
    x += key2; y += key0 + 2u;
    x += y; y = ((y << 13u) | (y >> 19u)) ^ x;
    x += y; y = ((y << 15u) | (y >> 17u)) ^ x;
    x += y; y = ((y << 26u) | (y >> 6u)) ^ x;
    x += y; y = ((y << 6u) | (y >> 26u)) ^ x;
    x += key0; y += key1 + 3u;
    x += y; y = ((y << 17u) | (y >> 15u)) ^ x;
    return vec2u(x, y);
}

// Element i of a uniform draw: a multiple of 2^-24 in [0, 1).
fn uniform_at(seed: u32, stream: u32, i: u32) -> f32 {
    let block = threefry(seed, stream, i >> 1u);
    return f32(select(block.x, block.y, (i & 1u) == 1u) >> 8u) * 0x1p-24;
}

// Element i of a standard normal draw, by Box and Muller; the logarithm's argument is in (0, 1].
fn normal_at(seed: u32, stream: u32, i: u32) -> f32 {
    let block = threefry(seed, stream, i >> 1u);
    let radius = sqrt(-2.0 * log((f32(block.x >> 8u) + 1.0) * 0x1p-24));
    let angle = f32(block.y >> 8u) * (0x1p-24 * 6.2831853071795864);
    return radius * select(cos(angle), sin(angle), (i & 1u) == 1u);
}
