// One invocation averages a pixel with its neighbours; pixels beyond the edge count as the edge's.
struct Image {
    width: u32,
    height: u32,
}

@group(0) @binding(0) var<uniform> image: Image;
@group(0) @binding(1) var<storage, read> pixels: array<f32>;
@group(1) @binding(0) var<storage, read_write> blurred: array<f32>;

override SIDE: u32 = 8;
override RADIUS: i32 = 1;

fn pixel(x: i32, y: i32) -> f32 {
    let column = clamp(x, 0, i32(image.width) - 1);
    let row = clamp(y, 0, i32(image.height) - 1);
    return pixels[row * i32(image.width) + column];
}

@compute @workgroup_size(SIDE, SIDE)
fn main(@builtin(global_invocation_id) id: vec3u) {
    if (id.x >= image.width || id.y >= image.height) {
        return;
    }
    var sum = 0.0;
    for (var dy = -RADIUS; dy <= RADIUS; dy++) {
        for (var dx = -RADIUS; dx <= RADIUS; dx++) {
            sum += pixel(i32(id.x) + dx, i32(id.y) + dy);
        }
    }
    let side = f32(2 * RADIUS + 1);
    blurred[id.y * image.width + id.x] = sum / (side * side);
}
