//! IQ3_S: 256 weights in sub-blocks of 32, w = d * (2 scale + 1) * ±point. Per 4 weights a 9-bit code,
//! whose upper bits lie in `high`; a sign bit per weight; nibbles of scales, the low one first.
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
pub const book = codebooks.iq3_s;
pub const mark = codebooks.Mark.negative;

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

pub inline fn codesOf32(block: *const Block, comptime j: usize) [8]usize {
    const high: usize = block.high[j];
    var result: [8]usize = undefined;
    inline for (&result, block.codes[8 * j ..][0..8], 0..) |*code, low, i| {
        code.* = low | (high << (8 - i) & 0x100);
    }
    return result;
}
pub inline fn markWords(block: *const Block) points.Marks {
    return @bitCast(block.signs);
}

// ------------------------------------------------------------------------- planes

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
