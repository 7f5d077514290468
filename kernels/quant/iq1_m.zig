//! IQ1_M: 256 weights in sub-blocks of 16, w = d / 8 * (2 scale + 1) * (8 point ± 1). Per 8 weights
//! a code of 11 bits, whose upper 3 lie in a nibble with the shift's sign; four words of four
//! 3-bit scales, whose upper nibbles together are d.
const std = @import("std");
const simd = @import("../simd.zig");
const super_block = @import("super_block.zig");
const codebooks = @import("codebooks.zig");
const points = @import("points.zig");
const planes = @import("point_planes.zig");

pub const Block = extern struct { codes: [32]u8, high: [16]u8, scales: [4]u16 align(1) };
pub const block_len = 256;
comptime {
    if (@sizeOf(Block) != 56) @compileError("IQ1_M has 56 bytes a block");
}

/// A weight of 1 is `d` times this.
pub const unit = 1.0 / 8.0;
pub const sub_len = 16;
pub const signed_scales = false;
pub const form = super_block.Form.narrow;
pub const offset = 16;
pub const largest = 9;
pub const mins = super_block.Mins.none;
pub const book = codebooks.iq1_s;
pub const mark = codebooks.Mark.one_less;

pub inline fn header(p: [4][*]const u8) super_block.Header {
    const Shorts = @Vector(16, u16);
    var units: [4]@Vector(16, u8) = undefined;
    var d: [4]u16 = undefined;
    inline for (0..4) |i| {
        const start = p[i] + @offsetOf(Block, "scales");
        const words = simd.load(@Vector(4, u16), start);
        const fourOfEach = [16]i32{ 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3 };
        const spread = @shuffle(u16, words, undefined, fourOfEach);
        const shifts: @Vector(16, u4) = comptime [4]u4{ 0, 3, 6, 9 } ** 4;
        units[i] = @truncate(spread >> shifts & @as(Shorts, @splat(7)));
        const nibbles = simd.load(u64, start) & 0xf000_f000_f000_f000;
        d[i] = @truncate(nibbles >> 48 | nibbles >> 36 | nibbles >> 24 | nibbles >> 12);
    }
    const halves: @Vector(4, f16) = @bitCast(@as(@Vector(4, u16), d));
    return .{
        .units = points.oddScales(simd.joinFour(u8, 16, units)),
        .d = simd.widenHalves(4, halves) * @as(simd.Floats4, @splat(unit)),
    };
}

pub inline fn codesOf32(block: *const Block, comptime j: usize) [4]usize {
    const high: usize = std.mem.readInt(u16, block.high[2 * j ..][0..2], .little);
    var result: [4]usize = undefined;
    inline for (&result, block.codes[4 * j ..][0..4], 0..) |*code, low, i| {
        code.* = low | (high >> (4 * i) & 7) << 8;
    }
    return result;
}
pub inline fn markWords(block: *const Block) points.Marks {
    const pairs: @Vector(16, u16) = @as(@Vector(16, u8), block.high);
    // Bit 7 of each byte is the mark of 8 weights.
    const bytes: @Vector(32, i8) = @bitCast(pairs << @splat(4) | pairs << @splat(8));
    return @bitCast(bytes >> @splat(7));
}

// ------------------------------------------------------------------------- planes

pub inline fn codesOfTwo(a: *const Block, b: *const Block) planes.Codes {
    return planes.codesWithUpper(Block, a, b, .{ 0, 4, 8, 12, 16, 20, 24, 28 }, 3);
}
pub inline fn marks(block: *const Block) simd.Bytes {
    // The sign of each word is that of its point.
    const high: @Vector(8, u16) = @bitCast(block.high);
    const words = planes.fields(high, .{ 60, 60, 0, 0, 4, 4, 8, 8 });
    return @bitCast(@as(@Vector(32, i16), @bitCast(words)) >> @splat(15));
}
pub inline fn scalesOf16(block: *const Block) simd.Ints {
    const fourOfEach = [16]i32{ 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3 };
    const scales: @Vector(4, u16) = block.scales;
    const words: @Vector(16, u32) = @shuffle(u16, scales, undefined, fourOfEach);
    const shifts: @Vector(16, u5) = comptime [4]u5{ 0, 3, 6, 9 } ** 4;
    return planes.oddScales(words << @splat(1) >> shifts, 3);
}
