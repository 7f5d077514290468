//! IQ2_XS: 256 weights in sub-blocks of 16, w = d / 8 * (2 scale + 1) * ±point. Words of a 9-bit code
//! and 7 sign bits for 8 weights each; nibbles of scales, the low one first.
const simd = @import("../simd.zig");
const super_block = @import("super_block.zig");
const codebooks = @import("codebooks.zig");
const points = @import("points.zig");
const planes = @import("point_planes.zig");

pub const Block = extern struct {
    d: f16 align(1),
    words: [32]u16 align(1),
    scales: [8]u8,
};
pub const block_len = 256;
comptime {
    if (@sizeOf(Block) != 74) @compileError("IQ2_XS has 74 bytes a block");
}

/// A weight of 1 is `d` times this.
pub const unit = 1.0 / 8.0;
pub const sub_len = 16;
pub const signed_scales = false;
pub const form = super_block.Form.narrow;
pub const offset = 64;
pub const largest = 43;
pub const mins = super_block.Mins.none;
pub const book = codebooks.iq2_xs;
pub const mark = codebooks.Mark.negative;

pub inline fn header(p: [4][*]const u8) super_block.Header {
    return .{
        .units = points.oddScales(super_block.nibbleUnits(p, @offsetOf(Block, "scales"))),
        .d = super_block.halves(p, @offsetOf(Block, "d")) * @as(simd.Floats4, @splat(unit)),
    };
}

pub inline fn codesOf32(block: *const Block, comptime j: usize) [4]usize {
    var result: [4]usize = undefined;
    inline for (&result, block.words[4 * j ..][0..4]) |*code, word| code.* = word & 511;
    return result;
}
pub inline fn markWords(block: *const Block) points.Marks {
    const signs: @Vector(32, u8) = @truncate(@as(@Vector(32, u16), block.words) >> @splat(9));
    return points.evenParity(@bitCast(signs));
}

// ------------------------------------------------------------------------- planes

pub inline fn codesOfTwo(a: *const Block, b: *const Block) planes.Codes {
    const first: simd.Bytes = @bitCast(a.words);
    const second: simd.Bytes = @bitCast(b.words);
    const high = @shuffle(u8, first, second, bytesInTurns(1));
    return .{
        .low = @shuffle(u8, first, second, bytesInTurns(0)),
        .upper = high & @as(simd.Bytes, @splat(1)),
    };
}
fn bytesInTurns(comptime odd: usize) [64]i32 {
    var indices: [64]i32 = undefined;
    for (&indices, 0..) |*index, i| {
        const from: i32 = @intCast((i / 16 * 8 + i % 8) * 2 + odd);
        index.* = if (i % 16 < 8) from else ~from;
    }
    return indices;
}
pub inline fn marks(block: *const Block) simd.Bytes {
    const signs = simd.evenParity(1, @bitCast(block.words));
    return simd.shiftToBytes(signs, .{ 8, 12, 24, 28, 40, 44, 56, 60 } ** 8);
}
pub inline fn scalesOf16(block: *const Block) simd.Ints {
    return planes.nibbleScales(&block.scales);
}
