//! Q5_K: as Q4_K with a fifth bit: bit j of byte i of `high` belongs to element i of sub-block j.
const simd = @import("../simd.zig");
const super_block = @import("super_block.zig");

pub const Block = extern struct {
    d: f16 align(1),
    dmin: f16 align(1),
    scales: [12]u8,
    high: [32]u8,
    quants: [128]u8,
};
pub const block_len = 256;
comptime {
    if (@sizeOf(Block) != 176) @compileError("Q5_K has 176 bytes a block");
}

pub fn dequantize(block: *const Block, output: *[block_len]f32) void {
    const d = simd.widenHalf(block.d);
    const dmin = simd.widenHalf(block.dmin);
    for (0..8) |j| {
        const scale, const min = super_block.scaleAndMin(&block.scales, j);
        const d_sub = d * @as(f32, @floatFromInt(scale));
        const m_sub = dmin * @as(f32, @floatFromInt(min));
        for (0..32) |i| {
            const byte = block.quants[j / 2 * 32 + i];
            const low = if (j % 2 == 0) byte & 15 else byte >> 4;
            const q = low | (block.high[i] >> @intCast(j) & 1) << 4;
            output[j * 32 + i] = d_sub * @as(f32, @floatFromInt(q)) - m_sub;
        }
    }
}

pub const sub_len = 32;
pub const signed_scales = false;
pub const form = super_block.Form.narrow;
/// Four products of a code and an activation fit 16 bits: 4 * 31 * 127.
pub const quads_fit = true;
pub const offset = 0;
pub const mins = super_block.Mins.beside_scales;
pub const header = super_block.sixBitHeader;

/// Sub-blocks `4 * half + odd` and `4 * half + odd + 2`.
pub inline fn quants(p: [*]const u8, comptime half: usize, comptime odd: usize) simd.Bytes {
    const first = 4 * half + odd;
    const bytes = simd.load(simd.Bytes, p + @offsetOf(Block, "quants") + half * 64);
    const high = simd.loadHalves(p, @offsetOf(Block, "high"), @offsetOf(Block, "high"));
    return simd.bits(bytes, .{ 4 * odd, 4 * odd }, 4, 0) |
        simd.bits(high, .{ first, first + 2 }, 1, 4);
}
