//! TQ2_0: 256 weights, w = d * (q - 1) with 2-bit q, meant to be 0..2. The bits lie as in Q2_K.
const simd = @import("../simd.zig");
const super_block = @import("super_block.zig");

pub const Block = extern struct { quants: [64]u8, d: f16 align(1) };
pub const block_len = 256;
comptime {
    if (@sizeOf(Block) != 66) @compileError("TQ2_0 has 66 bytes a block");
}

pub fn dequantize(block: *const Block, output: *[block_len]f32) void {
    const d = simd.widenHalf(block.d);
    for (output, 0..) |*w, e| {
        const q: i32 = block.quants[e / 128 * 32 + e % 32] >> @intCast(e % 128 / 32 * 2) & 3;
        w.* = @as(f32, @floatFromInt(q - 1)) * d;
    }
}

pub const sub_len = 256;
pub const signed_scales = false;
pub const form = super_block.Form.narrow;
pub const offset = 1;
pub const largest = 2;
pub const mins = super_block.Mins.none;

pub inline fn header(p: [4][*]const u8) super_block.Header {
    return .{ .units = undefined, .d = super_block.halves(p, @offsetOf(Block, "d")) };
}

/// Sub-blocks of 32 `4 * half + odd` and `4 * half + odd + 2`.
pub inline fn quants(p: [*]const u8, comptime half: usize, comptime odd: usize) simd.Bytes {
    const bytes = simd.loadHalves(p, half * 32, half * 32);
    return simd.bits(bytes, .{ 2 * odd, 2 * odd + 4 }, 2, 0);
}
