//! IQ1_S: 256 weights in sub-blocks of 32, w = d / 8 * (2 scale + 1) * (8 point ± 1). Per sub-block four
//! codes of 8 weights, whose upper 3 bits lie in a word with a 3-bit scale and the shift's sign.
const simd = @import("../simd.zig");
const super_block = @import("super_block.zig");
const codebooks = @import("codebooks.zig");
const points = @import("points.zig");

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

/// As `points.Weights` lie.
pub inline fn all(p: [*]const u8) points.Weights {
    const low: points.Codes = simd.load(@Vector(32, u8), p + @offsetOf(Block, "codes"));
    const high = simd.load(@Vector(8, u16), p + @offsetOf(Block, "high"));
    const spread = @shuffle(u16, high, undefined, points.fourOfEach);
    const upper = spread >> points.repeated(u4, .{ 0, 3, 6, 9 }) & @as(points.Codes, @splat(7));
    const weights = points.eights(codebooks.iq1_s, offset, low | upper << @splat(8));
    return points.shifted(weights, spread);
}
