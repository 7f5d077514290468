//! MXFP4: 32 weights, w = 2^(e - 127) * E2M1[q]: integers of the doubled table times 2^(e - 128).
//! Nibbles as in Q4_0.
const simd = @import("../simd.zig");
const block32 = @import("block32.zig");
const codebooks = @import("codebooks.zig");

pub const Block = extern struct { e: u8, quants: [16]u8 };
pub const block_len = 32;
comptime {
    if (@sizeOf(Block) != 17) @compileError("MXFP4 has 17 bytes a block");
}

pub fn dequantize(block: *const Block, output: *[block_len]f32) void {
    const d = halfPowers(1, .{block.e})[0];
    for (block.quants, 0..) |byte, i| {
        output[i] = d * @as(f32, @floatFromInt(codebooks.doubled_e2m1[byte & 15]));
        output[i + 16] = d * @as(f32, @floatFromInt(codebooks.doubled_e2m1[byte >> 4]));
    }
}

/// 2^(e - 128): the smallest two are subnormal.
pub inline fn halfPowers(comptime n: usize, e: @Vector(n, u32)) @Vector(n, f32) {
    const U = @Vector(n, u32);
    const normal = (e -% @as(U, @splat(1))) << @splat(23);
    const subnormal = (e +% @as(U, @splat(1))) << @splat(21);
    return @bitCast(@select(u32, e < @as(U, @splat(2)), subnormal, normal));
}

pub const levels = codebooks.doubled_e2m1;
pub const is_signed = false;
pub const offset = 16;
pub const has_min = false;
pub inline fn quants(p: [*]const u8) block32.Quants {
    const packed_bytes = block32.lanes(p, @sizeOf(Block), @offsetOf(Block, "quants"));
    return block32.lookUp(block32.nibbles(packed_bytes), levels, offset);
}
pub inline fn scales(p: [4][*]const u8) simd.Floats {
    const size = @sizeOf(Block);
    return halfPowers(16, block32.scaleBytes(p, .{ 0, size, 2 * size, 3 * size }));
}
