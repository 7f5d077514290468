//! IQ3_XXS: 256 weights in sub-blocks of 32, w = d / 4 * (2 scale + 1) * ±point. A code per 4 weights;
//! per sub-block a word of four times 7 sign bits and a 4-bit scale.
const simd = @import("../simd.zig");
const super_block = @import("super_block.zig");
const codebooks = @import("codebooks.zig");
const points = @import("points.zig");
const planes = @import("point_planes.zig");

pub const Block = extern struct {
    d: f16 align(1),
    codes: [64]u8,
    signs: [8]u32 align(1),
};
pub const block_len = 256;
comptime {
    if (@sizeOf(Block) != 98) @compileError("IQ3_XXS has 98 bytes a block");
}

/// A weight of 1 is `d` times this.
pub const unit = 1.0 / 4.0;
pub const sub_len = 32;
pub const signed_scales = false;
pub const form = super_block.Form.narrow;
pub const offset = 64;
pub const largest = 62;
pub const mins = super_block.Mins.none;
pub const book = codebooks.iq3_xxs;
pub const mark = codebooks.Mark.negative;

pub inline fn header(p: [4][*]const u8) super_block.Header {
    var scales: [4]@Vector(8, u8) = undefined;
    inline for (&scales, p) |*row, block| {
        const words = simd.load(@Vector(8, u32), block + @offsetOf(Block, "signs"));
        row.* = @truncate(words >> @splat(28));
    }
    return .{
        .units = points.oddScales(super_block.twice(scales)),
        .d = super_block.halves(p, @offsetOf(Block, "d")) * @as(simd.Floats4, @splat(unit)),
    };
}

pub inline fn codesOf32(block: *const Block, comptime j: usize) [8]usize {
    var result: [8]usize = undefined;
    inline for (&result, block.codes[8 * j ..][0..8]) |*code, low| code.* = low;
    return result;
}
pub inline fn markWords(block: *const Block) points.Marks {
    return points.evenSigns(block.signs);
}

// ------------------------------------------------------------------------- planes

pub inline fn codesOfOne(block: *const Block) planes.Codes {
    return .{ .low = block.codes };
}
pub inline fn marks(block: *const Block) simd.Bytes {
    return planes.evenSignMarks(@as(@Vector(8, u32), block.signs), 0);
}
pub inline fn scalesOf16(block: *const Block) simd.Ints {
    const words: @Vector(8, u64) = @as(@Vector(8, u32), block.signs);
    return planes.oddScales(planes.twice(words) >> @splat(27), 4);
}
