//! IQ3_S: 256 weights in sub-blocks of 32, w = d * (2 scale + 1) * ±point. Per 4 weights a 9-bit code,
//! whose upper bits lie in `high`; a sign bit per weight; nibbles of scales, the low one first.
const std = @import("std");
const simd = @import("../simd.zig");
const super_block = @import("super_block.zig");
const codebooks = @import("codebooks.zig");
const points = @import("points.zig");
const planes = @import("point_planes.zig");

pub const Block = extern struct {
    d: f16 align(1),
    codes: [64]u8,
    high: [8]u8,
    signs: [32]u8,
    scales: [4]u8,
};
pub const block_len = 256;
comptime {
    if (@sizeOf(Block) != 110) @compileError("IQ3_S has 110 bytes a block");
}

/// A weight of 1 is `d` times this.
pub const unit = 1.0;
pub const sub_len = 32;
pub const signed_scales = false;
pub const form = super_block.Form.narrow;
pub const offset = 16;
pub const largest = 15;
pub const mins = super_block.Mins.none;

pub inline fn header(p: [4][*]const u8) super_block.Header {
    var scales: [4]@Vector(8, u8) = undefined;
    inline for (&scales, p) |*row, block| {
        const bytes = simd.load(@Vector(4, u8), block + @offsetOf(Block, "scales"));
        const words: @Vector(4, u16) = bytes;
        row.* = @bitCast((words | words << @splat(4)) & @as(@Vector(4, u16), @splat(0x0f0f)));
    }
    return .{
        .units = points.oddScales(super_block.twice(scales)),
        .d = super_block.halves(p, @offsetOf(Block, "d")) * @as(simd.Floats4, @splat(unit)),
    };
}

/// As `points.Weights` lie.
pub inline fn all(p: [*]const u8) points.Weights {
    var codes: [2]points.Codes = undefined;
    inline for (&codes, 0..) |*words, half| {
        const start = @offsetOf(Block, "codes") + half * 32;
        const low: points.Codes = simd.load(@Vector(32, u8), p + start);
        const bits = simd.load(u32, p + @offsetOf(Block, "high") + half * 4);
        const is_upper: @Vector(32, bool) = @bitCast(bits);
        words.* = low | @select(u16, is_upper, upper, @as(points.Codes, @splat(0)));
    }
    const signs = simd.load(points.Signs, p + @offsetOf(Block, "signs"));
    return points.withSigns(offset, points.fours(codebooks.iq3_s, offset, codes), signs);
}
const upper: points.Codes = @splat(256);

// ------------------------------------------------------------------------- planes

pub const book = codebooks.iq3_s;
pub const weight = planes.signed;

pub inline fn codesOfOne(block: *const Block) planes.Codes {
    const is_upper: @Vector(64, bool) = @bitCast(block.high);
    const zero: simd.Bytes = @splat(0);
    const one: simd.Bytes = @splat(1);
    return .{ .low = block.codes, .upper = @select(u8, is_upper, one, zero) };
}
pub inline fn marks(block: *const Block) simd.Bytes {
    return planes.signMarks(&block.signs);
}
pub inline fn scalesOf16(block: *const Block) simd.Ints {
    const all_scales: @Vector(16, u32) = @splat(@bitCast(block.scales));
    const shifts = [16]u5{ 0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28 };
    return planes.oddScales(all_scales >> shifts << @splat(1), 4);
}
