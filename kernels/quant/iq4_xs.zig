//! IQ4_XS: 256 weights in sub-blocks of 32, w = d * (scale - 32) * level[q] with 6-bit scale and
//! the levels of IQ4_NL. Per sub-block 16 bytes of nibbles as in Q4_0.
const simd = @import("../simd.zig");
const super_block = @import("super_block.zig");
const codebooks = @import("codebooks.zig");

pub const Block = extern struct {
    d: f16 align(1),
    scales_high: u16 align(1),
    scales_low: [4]u8,
    quants: [128]u8,
};
pub const block_len = 256;
comptime {
    if (@sizeOf(Block) != 136) @compileError("IQ4_XS has 136 bytes a block");
}

pub fn dequantize(block: *const Block, output: *[block_len]f32) void {
    const d = simd.widenHalf(block.d);
    for (0..8) |j| {
        const low: i32 = block.scales_low[j / 2] >> @intCast(j % 2 * 4) & 15;
        const high: i32 = block.scales_high >> @intCast(2 * j) & 3;
        const d_sub = d * @as(f32, @floatFromInt((low | high << 4) - 32));
        for (block.quants[j * 16 ..][0..16], 0..) |byte, i| {
            const first: f32 = @floatFromInt(codebooks.iq4_levels[byte & 15]);
            const second: f32 = @floatFromInt(codebooks.iq4_levels[byte >> 4]);
            output[j * 32 + i] = d_sub * first;
            output[j * 32 + i + 16] = d_sub * second;
        }
    }
}

pub const sub_len = 32;
pub const signed_scales = true;
pub const form: super_block.Form = if (simd.wide_unsigned) .wide else .signed;
pub const offset = if (form == .wide) 128 else 0;
pub const largest = 127;
pub const mins = super_block.Mins.none;

pub inline fn header(p: [4][*]const u8) super_block.Header {
    var low: [4]@Vector(4, u32) = undefined;
    var high: [4]@Vector(4, u32) = undefined;
    inline for (0..4) |i| {
        low[i] = @splat(simd.load(u32, p[i] + @offsetOf(Block, "scales_low")));
        high[i] = @splat(simd.load(u16, p[i] + @offsetOf(Block, "scales_high")));
    }
    // Nibble j of 32 bits and pair j of 16 bits to byte j, twice: the second eight meet the sums.
    const nibbles = simd.joinFour(u32, 4, low) >> super_block.repeat(u5, .{ 0, 16, 0, 16 });
    const pairs = simd.joinFour(u32, 4, high) >> super_block.repeat(u5, .{ 0, 8, 0, 8 });
    const four = simd.spreadFields(nibbles, 4);
    const two = simd.spreadFields(pairs, 2) << @splat(4);
    return .{
        .units = @as(simd.Bytes, @bitCast(four | two)) -% @as(simd.Bytes, @splat(32)),
        .d = super_block.halves(p, @offsetOf(Block, "d")),
    };
}
/// Sub-blocks `4 * half + odd` and `4 * half + odd + 2`.
pub inline fn quants(p: [*]const u8, comptime half: usize, comptime odd: usize) simd.Bytes {
    const bytes = simd.load(simd.Bytes, p + @offsetOf(Block, "quants") + half * 64);
    const lanes = @shuffle(u8, bytes, undefined, twice(odd));
    const nibbles = simd.nibblesOfEights(lanes, .{ 0, 0, 4, 4, 0, 0, 4, 4 });
    return simd.lookUp16(nibbles, codebooks.iq4_levels, offset);
}
/// 128-bit lanes odd, odd, odd + 2, odd + 2.
fn twice(comptime odd: usize) [64]i32 {
    @setEvalBranchQuota(10_000);
    var indices: [64]i32 = undefined;
    for (0..64) |i| indices[i] = @intCast((odd + i / 32 * 2) * 16 + i % 16);
    return indices;
}
