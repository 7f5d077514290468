//! Q5_1: 32 weights, w = q * d + m; the low 4 bits of q as in Q4_1, bit i of `high` the fifth.
const simd = @import("../simd.zig");
const block32 = @import("block32.zig");
const fifthBit = @import("q5_0.zig").fifthBit;

pub const Block = extern struct {
    d: f16 align(1),
    m: f16 align(1),
    high: u32 align(1),
    quants: [16]u8,
};
pub const block_len = 32;
comptime {
    if (@sizeOf(Block) != 24) @compileError("Q5_1 has 24 bytes a block");
}

pub fn dequantize(block: *const Block, output: *[block_len]f32) void {
    const d = simd.widenHalf(block.d);
    const m = simd.widenHalf(block.m);
    for (block.quants, 0..) |byte, i| {
        const low = (byte & 15) | fifthBit(block.high, i);
        const high = (byte >> 4) | fifthBit(block.high, i + 16);
        output[i] = @as(f32, @floatFromInt(low)) * d + m;
        output[i + 16] = @as(f32, @floatFromInt(high)) * d + m;
    }
}

pub const is_signed = false;
pub const offset = 0;
pub const has_min = true;
pub inline fn quants(p: [*]const u8) block32.Quants {
    const size = @sizeOf(Block);
    const low = block32.nibbles(block32.lanes(p, size, @offsetOf(Block, "quants")));
    return block32.addFifthBits(low, p, size, @offsetOf(Block, "high"));
}
