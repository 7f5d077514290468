//! Q6_K: 256 weights in sub-blocks of 16, w = d * scale * (q - 32) with 6-bit q and signed scale.
//! Per 128 weights 64 bytes of low nibbles and 32 bytes of four 2-bit parts.
const simd = @import("../simd.zig");
const super_block = @import("super_block.zig");

pub const Block = extern struct {
    low: [128]u8,
    high: [64]u8,
    scales: [16]i8,
    d: f16 align(1),
};
pub const block_len = 256;
comptime {
    if (@sizeOf(Block) != 210) @compileError("Q6_K has 210 bytes a block");
}

/// Scales first; of each 128 weights, the halves of the sub-blocks of 32.
pub const read_order = [_][2]usize{ .{ 208, 2 }, .{ 192, 16 } } ++
    inTurn(0, 0) ++ inTurn(0, 16) ++ inTurn(1, 0) ++ inTurn(1, 16);
fn inTurn(n: usize, at: usize) [3][2]usize {
    return .{
        .{ @offsetOf(Block, "high") + n * 32 + at, 16 },
        .{ @offsetOf(Block, "low") + n * 64 + at, 16 },
        .{ @offsetOf(Block, "low") + n * 64 + 32 + at, 16 },
    };
}

pub fn dequantize(block: *const Block, output: *[block_len]f32) void {
    const d = simd.widenHalf(block.d);
    for (output, 0..) |*w, e| {
        const half = e / 128;
        const sub = e % 128 / 32;
        const i = e % 32;
        const byte = block.low[half * 64 + (sub % 2) * 32 + i];
        const low: i32 = if (sub < 2) byte & 15 else byte >> 4;
        const high: i32 = block.high[half * 32 + i] >> @intCast(2 * sub) & 3;
        const scale: f32 = @floatFromInt(block.scales[e / 16]);
        w.* = d * scale * @as(f32, @floatFromInt((low | high << 4) - 32));
    }
}

pub const sub_len = 16;
pub const signed_scales = true;
pub const form = super_block.Form.narrow;
/// Four products of a code and an activation fit 16 bits: 4 * 63 * 127.
pub const quads_fit = true;
pub const offset = 32;
pub const mins = super_block.Mins.none;

pub inline fn header(p: [4][*]const u8) super_block.Header {
    return .{
        .units = super_block.lanes(p, @offsetOf(Block, "scales")),
        .d = super_block.halves(p, @offsetOf(Block, "d")),
    };
}

/// Sub-blocks of 32 `4 * half + odd` and `4 * half + odd + 2`.
pub inline fn quants(p: [*]const u8, comptime half: usize, comptime odd: usize) simd.Bytes {
    const low_start = @offsetOf(Block, "low") + half * 64 + odd * 32;
    const high_start = @offsetOf(Block, "high") + half * 32;
    const low = simd.loadHalves(p, low_start, low_start);
    const high = simd.loadHalves(p, high_start, high_start);
    return simd.bits(low, .{ 0, 4 }, 4, 0) | simd.bits(high, .{ 2 * odd, 2 * odd + 4 }, 2, 4);
}
