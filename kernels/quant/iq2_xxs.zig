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

/// As `points.Weights` lie.
pub inline fn all(p: [*]const u8) points.Weights {
    const subs = simd.load(@Vector(16, u32), p + @offsetOf(Block, "subs"));
    const bytes: @Vector(32, u8) = @bitCast(@shuffle(u32, subs, undefined, everyOther(0)));
    const signs = points.evenSigns(@shuffle(u32, subs, undefined, everyOther(1)));
    return points.withSigns(offset, points.eights(codebooks.iq2_xxs, offset, bytes), signs);
}
fn everyOther(comptime first: usize) [8]i32 {
    var indices: [8]i32 = undefined;
    for (&indices, 0..) |*index, i| index.* = @intCast(2 * i + first);
    return indices;
}

// ------------------------------------------------------------------------- planes

pub const book = codebooks.iq2_xxs;
pub const weight = planes.signed;

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
