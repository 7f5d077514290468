//! IQ4_XS: 256 weights in sub-blocks of 32, w = d * (scale - 32) * level[q] with 6-bit scale and
//! the levels of IQ4_NL. Per sub-block 16 bytes of nibbles as in Q4_0.
const simd = @import("../simd.zig");
const dots = @import("../dots.zig");
const block32 = @import("block32.zig");
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

pub const levels = codebooks.iq4_levels;
pub const sub_len = 32;
pub const signed_scales = true;
pub const form: super_block.Form = if (dots.wide_unsigned) .wide else .signed;
pub const offset = if (form == .wide) 128 else 0;
pub const largest = 127;
pub const mins = super_block.Mins.none;

pub inline fn header(p: [4][*]const u8) super_block.Header {
    if (simd.has_avx512) {
        var rows: [4]@Vector(2, u64) = undefined;
        inline for (&rows, p) |*row, block| row.* = @splat(simd.load(u64, block));
        const starts: simd.Bytes = @bitCast(simd.joinFour(u64, 2, rows));
        const low = simd.shiftToBytes(starts, fieldStarts(@offsetOf(Block, "scales_low"), 4, 0));
        const high = simd.shiftToBytes(starts, fieldStarts(@offsetOf(Block, "scales_high"), 2, 4));
        const four = low & @as(simd.Bytes, @splat(0x0f));
        const two = high & @as(simd.Bytes, @splat(0x30));
        const halves: @Vector(32, f16) = @bitCast(starts);
        return .{
            .units = (four | two) -% @as(simd.Bytes, @splat(32)),
            .d = simd.widenHalves(4, @shuffle(f16, halves, undefined, [4]i32{ 0, 8, 16, 24 })),
        };
    }
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
/// The first bit of each of 8 fields from byte `start` on, or `before` bits less.
fn fieldStarts(comptime start: u8, comptime size: u8, comptime before: u8) [64]u8 {
    var bits: [64]u8 = undefined;
    for (&bits, 0..) |*bit, i| bit.* = 8 * start + i % 8 * size - before;
    return bits;
}
/// Sub-blocks `4 * half + odd` and `4 * half + odd + 2`.
pub inline fn quants(p: [*]const u8, comptime half: usize, comptime odd: usize) simd.Bytes {
    const bytes = simd.load(simd.Bytes, p + @offsetOf(Block, "quants") + half * 64);
    const lanes = @shuffle(u8, bytes, undefined, twice(odd));
    const nibbles = simd.nibblesOfEights(lanes, .{ 0, 0, 4, 4, 0, 0, 4, 4 });
    return simd.lookUp16(nibbles, levels, offset);
}
/// Lane j: the first 16 weights of sub-block 4 * half + j, and the others.
pub inline fn laneQuants(p: [*]const u8, comptime half: usize) block32.Quants {
    const bytes = simd.load(simd.Bytes, p + @offsetOf(Block, "quants") + half * 64);
    return block32.lookUp(block32.nibbles(bytes), levels, offset);
}
/// 128-bit lanes odd, odd, odd + 2, odd + 2.
fn twice(comptime odd: usize) [64]i32 {
    @setEvalBranchQuota(10_000);
    var indices: [64]i32 = undefined;
    for (0..64) |i| indices[i] = @intCast((odd + i / 32 * 2) * 16 + i % 16);
    return indices;
}
