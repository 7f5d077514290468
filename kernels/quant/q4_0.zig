//! Q4_0: 32 weights, w = (q - 8) * d with 4-bit q. Byte i holds elements i (low) and i + 16.
const simd = @import("../simd.zig");
const block32 = @import("block32.zig");

pub const Block = extern struct { d: f16 align(1), quants: [16]u8 };
pub const block_len = 32;
comptime {
    if (@sizeOf(Block) != 18) @compileError("Q4_0 has 18 bytes a block");
}

pub fn dequantize(block: *const Block, output: *[block_len]f32) void {
    const d = simd.widenHalf(block.d);
    for (block.quants, 0..) |byte, i| {
        output[i] = @as(f32, @floatFromInt(@as(i32, byte & 15) - 8)) * d;
        output[i + 16] = @as(f32, @floatFromInt(@as(i32, byte >> 4) - 8)) * d;
    }
}

pub const is_signed = false;
pub const offset = 8;
pub const has_min = false;
pub inline fn quants(p: [*]const u8) block32.Quants {
    return block32.nibbles(block32.lanes(p, @sizeOf(Block), @offsetOf(Block, "quants")));
}
