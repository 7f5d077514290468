//! IQ1_S: 256 weights in sub-blocks of 32, w = d / 8 * (2 scale + 1) * (8 point ± 1). Per sub-block four
//! codes of 8 weights, whose upper 3 bits lie in a word with a 3-bit scale and the shift's sign.
const simd = @import("../simd.zig");
const super_block = @import("super_block.zig");
const codebooks = @import("codebooks.zig");
const points = @import("points.zig");
const planes = @import("point_planes.zig");

pub const Block = extern struct {
    d: f16 align(1),
    codes: [32]u8,
    high: [8]u16 align(1),
};
pub const block_len = 256;
comptime {
    if (@sizeOf(Block) != 50) @compileError("IQ1_S has 50 bytes a block");
}

/// A weight of 1 is `d` times this.
pub const unit = 1.0 / 8.0;
pub const sub_len = 32;
pub const signed_scales = false;
pub const form = super_block.Form.narrow;
pub const offset = 16;
pub const largest = 9;
pub const mins = super_block.Mins.none;
pub const book = codebooks.iq1_s;
pub const mark = codebooks.Mark.one_less;

pub inline fn header(p: [4][*]const u8) super_block.Header {
    var scales: [4]@Vector(8, u8) = undefined;
    inline for (&scales, p) |*row, block| {
        const words = simd.load(@Vector(8, u16), block + @offsetOf(Block, "high"));
        row.* = @truncate(words >> @splat(12) & @as(@Vector(8, u16), @splat(7)));
    }
    return .{
        .units = points.oddScales(super_block.twice(scales)),
        .d = super_block.halves(p, @offsetOf(Block, "d")) * @as(simd.Floats4, @splat(unit)),
    };
}

pub inline fn codesOf32(block: *const Block, comptime j: usize) [4]usize {
    const high: usize = block.high[j];
    var result: [4]usize = undefined;
    inline for (&result, block.codes[4 * j ..][0..4], 0..) |*code, low, i| {
        code.* = low | (high >> (3 * i) & 7) << 8;
    }
    return result;
}
pub inline fn markWords(block: *const Block) points.Marks {
    const words: @Vector(8, i32) = @as(@Vector(8, i16), @bitCast(block.high));
    return @bitCast(words >> @splat(15));
}

// ------------------------------------------------------------------------- planes

pub inline fn codesOfTwo(a: *const Block, b: *const Block) planes.Codes {
    return planes.codesWithUpper(Block, a, b, .{ 0, 3, 6, 9, 16, 19, 22, 25 }, 3);
}
pub inline fn marks(block: *const Block) simd.Bytes {
    return @bitCast(signed(block) >> @splat(15));
}
pub inline fn scalesOf16(block: *const Block) simd.Ints {
    return planes.oddScales(planes.twice(@bitCast(signed(block))) >> @splat(11), 3);
}
inline fn signed(block: *const Block) @Vector(8, i64) {
    return @as(@Vector(8, i16), @bitCast(block.high));
}
