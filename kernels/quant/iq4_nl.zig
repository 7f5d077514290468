//! IQ4_NL: 32 weights, w = level[q] * d with a table of 16 levels. Nibbles as in Q4_0.
const simd = @import("../simd.zig");
const dots = @import("../dots.zig");
const block32 = @import("block32.zig");
const codebooks = @import("codebooks.zig");

pub const Block = extern struct { d: f16 align(1), quants: [16]u8 };
pub const block_len = 32;
comptime {
    if (@sizeOf(Block) != 18) @compileError("IQ4_NL has 18 bytes a block");
}

pub fn dequantize(block: *const Block, output: *[block_len]f32) void {
    const d = simd.widenHalf(block.d);
    for (block.quants, 0..) |byte, i| {
        output[i] = d * @as(f32, @floatFromInt(codebooks.iq4_levels[byte & 15]));
        output[i + 16] = d * @as(f32, @floatFromInt(codebooks.iq4_levels[byte >> 4]));
    }
}

pub const levels = codebooks.iq4_levels;
pub const is_signed = !dots.wide_unsigned;
pub const offset = if (is_signed) 0 else 128;
pub const has_min = false;
pub inline fn quants(p: [*]const u8) block32.Quants {
    const packed_bytes = block32.lanes(p, @sizeOf(Block), @offsetOf(Block, "quants"));
    return block32.lookUp(block32.nibbles(packed_bytes), levels, offset);
}
