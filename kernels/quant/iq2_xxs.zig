//! IQ2_XXS: 256 weights in sub-blocks of 32, w = d / 8 * (2 scale + 1) * ±point. Per sub-block four
//! codes of 8 weights, then a word of four times 7 sign bits and a 4-bit scale.
const simd = @import("../simd.zig");
const super_block = @import("super_block.zig");
const codebooks = @import("codebooks.zig");
const points = @import("points.zig");
const planes = @import("point_planes.zig");

pub const Block = extern struct {
    d: f16 align(1),
    subs: [8]extern struct { codes: [4]u8, signs: u32 align(1) },
};
pub const block_len = 256;
comptime {
    if (@sizeOf(Block) != 66) @compileError("IQ2_XXS has 66 bytes a block");
}

/// A weight of 1 is `d` times this.
pub const unit = 1.0 / 8.0;
pub const sub_len = 32;
pub const signed_scales = false;
pub const form = super_block.Form.narrow;
pub const offset = 64;
pub const largest = 43;
pub const mins = super_block.Mins.none;
pub const book = codebooks.iq2_xxs;
pub const mark = codebooks.Mark.negative;

pub inline fn header(p: [4][*]const u8) super_block.Header {
    var scales: [4]@Vector(8, u8) = undefined;
    inline for (&scales, p) |*row, block| {
        row.* = @truncate(simd.load(@Vector(8, u64), block + 2) >> @splat(60));
    }
    return .{
        .units = points.oddScales(super_block.twice(scales)),
        .d = super_block.halves(p, @offsetOf(Block, "d")) * @as(simd.Floats4, @splat(unit)),
    };
}

pub inline fn codesOf32(block: *const Block, comptime j: usize) [4]usize {
    const bytes = block.subs[j].codes;
    return .{ bytes[0], bytes[1], bytes[2], bytes[3] };
}
pub inline fn markWords(block: *const Block) points.Marks {
    const subs: @Vector(16, u32) = @bitCast(block.subs);
    return points.evenSigns(@shuffle(u32, subs, undefined, [8]i32{ 1, 3, 5, 7, 9, 11, 13, 15 }));
}

// ------------------------------------------------------------------------- planes

pub inline fn codesOfTwo(a: *const Block, b: *const Block) planes.Codes {
    const first: simd.Bytes = @bitCast(a.subs);
    return .{ .low = @shuffle(u8, first, @as(simd.Bytes, @bitCast(b.subs)), in_turns) };
}
const in_turns: [64]i32 = blk: {
    var indices: [64]i32 = undefined;
    for (&indices, 0..) |*index, i| {
        const from: i32 = @intCast((i / 16 * 2 + i % 8 / 4) * 8 + i % 4);
        index.* = if (i % 16 < 8) from else ~from;
    }
    break :blk indices;
};
pub inline fn marks(block: *const Block) simd.Bytes {
    return planes.evenSignMarks(@as(@Vector(8, u64), @bitCast(block.subs)), 32);
}
pub inline fn scalesOf16(block: *const Block) simd.Ints {
    const subs: @Vector(8, u64) = @bitCast(block.subs);
    return planes.oddScales(planes.twice(subs >> @splat(59)), 4);
}
