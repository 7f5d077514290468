//! Q5_0: 32 weights, w = (q - 16) * d; the low 4 bits of q as in Q4_0, bit i of `high` the fifth.
const simd = @import("../simd.zig");
const block32 = @import("block32.zig");

pub const Block = extern struct { d: f16 align(1), high: u32 align(1), quants: [16]u8 };
pub const block_len = 32;
comptime {
    if (@sizeOf(Block) != 22) @compileError("Q5_0 has 22 bytes a block");
}

pub fn dequantize(block: *const Block, output: *[block_len]f32) void {
    const d = simd.widenHalf(block.d);
    for (block.quants, 0..) |byte, i| {
        const low: i32 = (byte & 15) | fifthBit(block.high, i);
        const high: i32 = (byte >> 4) | fifthBit(block.high, i + 16);
        output[i] = @as(f32, @floatFromInt(low - 16)) * d;
        output[i + 16] = @as(f32, @floatFromInt(high - 16)) * d;
    }
}

/// Bit `i` of the block's high bits, as 16 or 0.
pub inline fn fifthBit(high: u32, i: usize) u8 {
    return @truncate((high >> @intCast(i) & 1) << 4);
}

pub const is_signed = false;
pub const offset = 16;
pub const has_min = false;
pub inline fn quants(p: [*]const u8) block32.Quants {
    const size = @sizeOf(Block);
    const low = block32.nibbles(block32.lanes(p, size, @offsetOf(Block, "quants")));
    return block32.addFifthBits(low, p, size, @offsetOf(Block, "high"));
}
