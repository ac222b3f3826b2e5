"""The WGSL that walks over buffers for sanitizers: new NaN and infinity, bits that differ, memory that nobody wrote."""

from __future__ import annotations

WORKGROUP = 64
COMPARED = "rrw"
FOUND_BYTES = 16
POISON = 0xFFE7FFE7  # NaN as one f32 and as two f16, and no integer that anybody counts to

# found: the number of NaN, the first one's index with all bits flipped, and the same of infinities. Bits are looked at, as
# ``x != x`` is false for NaN on many drivers.
SCAN = f"""@group(0) @binding(0) var<storage, read> now: array<u32>;
@group(0) @binding(1) var<storage, read> other: array<u32>;
@group(0) @binding(2) var<storage, read_write> found: array<atomic<u32>>;

fn note(k: u32, i: u32) {{
    atomicAdd(&found[k], 1u);
    atomicMax(&found[k + 1u], ~i);
}}

@compute @workgroup_size({WORKGROUP})
fn born(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {{
    for (var i = id.x; i < arrayLength(&now); i += groups.x * {WORKGROUP}u) {{
        let is = now[i] & 0x7fffffffu;
        var was = 0u;
        if (i < arrayLength(&other)) {{
            was = other[i] & 0x7fffffffu;
        }}
        if (is > 0x7f800000u && was <= 0x7f800000u) {{
            note(0u, i);
        }}
        if (is == 0x7f800000u && was != 0x7f800000u) {{
            note(2u, i);
        }}
    }}
}}

@compute @workgroup_size({WORKGROUP})
fn differ(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {{
    for (var i = id.x; i < arrayLength(&now); i += groups.x * {WORKGROUP}u) {{
        if (now[i] != other[i]) {{
            note(0u, i);
        }}
    }}
}}

@compute @workgroup_size({WORKGROUP})
fn unwritten(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {{
    for (var i = id.x; i < arrayLength(&now); i += groups.x * {WORKGROUP}u) {{
        if (now[i] == {POISON}u && arrayLength(&other) > 0u) {{
            note(0u, i);
        }}
    }}
}}
"""
