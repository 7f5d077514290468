//! IQ2_S: 256 weights in sub-blocks of 16, w = d / 8 * (2 scale + 1) * ±point. Per 8 weights a 10-bit
//! code, whose upper 2 bits lie in `high`, and 8 sign bits; nibbles of scales, the low one first.
const simd = @import("../simd.zig");
const super_block = @import("super_block.zig");
const codebooks = @import("codebooks.zig");
const points = @import("points.zig");
const planes = @import("point_planes.zig");

pub const Block = extern struct {
    d: f16 align(1),
    codes: [32]u8,
    signs: [32]u8,
    high: [8]u8,
    scales: [8]u8,
};
pub const block_len = 256;
comptime {
    if (@sizeOf(Block) != 82) @compileError("IQ2_S has 82 bytes a block");
}

/// A weight of 1 is `d` times this.
pub const unit = 1.0 / 8.0;
pub const sub_len = 16;
pub const signed_scales = false;
pub const form = super_block.Form.narrow;
pub const offset = 64;
pub const largest = 43;
pub const mins = super_block.Mins.none;
pub const book = codebooks.iq2_s;
pub const mark = codebooks.Mark.negative;

pub inline fn header(p: [4][*]const u8) super_block.Header {
    return .{
        .units = points.oddScales(super_block.nibbleUnits(p, @offsetOf(Block, "scales"))),
        .d = super_block.halves(p, @offsetOf(Block, "d")) * @as(simd.Floats4, @splat(unit)),
    };
}

pub inline fn codesOf32(block: *const Block, comptime j: usize) [4]usize {
    const high: usize = block.high[j];
    var result: [4]usize = undefined;
    inline for (&result, block.codes[4 * j ..][0..4], 0..) |*code, low, i| {
        code.* = low | (high << (8 - 2 * i) & 0x300);
    }
    return result;
}
pub inline fn markWords(block: *const Block) points.Marks {
    return @bitCast(block.signs);
}

// ------------------------------------------------------------------------- planes

pub inline fn codesOfTwo(a: *const Block, b: *const Block) planes.Codes {
    return planes.codesWithUpper(Block, a, b, .{ 0, 2, 4, 6, 8, 10, 12, 14 }, 2);
}
pub inline fn marks(block: *const Block) simd.Bytes {
    return planes.signMarks(&block.signs);
}
pub inline fn scalesOf16(block: *const Block) simd.Ints {
    return planes.nibbleScales(&block.scales);
}
