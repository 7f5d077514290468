//! IQ1_S to IQ3_S: 256 weights as points of code books, with signs apart (IQ2, IQ3) or a shift of
//! the points (IQ1). Where the bits lie is told by the files of kernels/quant.
const std = @import("std");
const codebooks = @import("../quant/codebooks.zig");
const points = @import("points.zig");
const len = 256;
const X = *const [len]f32;
const limit = std.math.floatMax(f16);

/// Signs of each 8 weights, and the search on what is left.
fn Signed(comptime is_even: bool, comptime layout: points.Layout) type {
    return struct {
        const Found = struct { signs: [32]u8, points: points.Search(layout).Found };

        fn run(x: X, w: X) Found {
            var found: Found = undefined;
            var magnitudes: [len]f32 = undefined;
            for (&found.signs, 0..) |*signs, i| {
                const at = i * 8;
                signs.* = points.splitSigns(is_even, x[at..][0..8], w[at..][0..8], magnitudes[at..][0..8]);
            }
            found.points = points.Search(layout).run(&magnitudes, w);
            return found;
        }
    };
}

/// Pairs of nibbles, the low one first.
fn joinNibbles(comptime n: usize, numbers: *const [2 * n]u8) [n]u8 {
    var bytes: [n]u8 = undefined;
    for (&bytes, 0..) |*byte, i| byte.* = numbers[2 * i] | numbers[2 * i + 1] << 4;
    return bytes;
}

/// Four times 7 sign bits and a 4-bit scale.
fn signWord(signs: *const [4]u8, scale: u8) u32 {
    var word: u32 = @as(u32, scale) << 28;
    for (signs, 0..) |bits, k| word |= @as(u32, bits & 127) << @intCast(7 * k);
    return word;
}

pub const Iq2Xxs = struct {
    pub const Block = @import("../quant/iq2_xxs.zig").Block;
    pub const block_len = len;
    pub const largest = limit;

    pub fn quantize(x: X, w: X, block: *Block) void {
        const found = Signed(true, .{
            .book = codebooks.iq2_xxs,
            .sub_len = 32,
            .num_scales = 16,
            .unit = @import("../quant/iq2_xxs.zig").unit,
        }).run(x, w);
        block.d = found.points.d;
        for (&block.subs, 0..) |*sub, j| {
            for (&sub.codes, found.points.codes[j * 4 ..][0..4]) |*byte, code| byte.* = @intCast(code);
            sub.signs = signWord(found.signs[j * 4 ..][0..4], found.points.scales[j]);
        }
    }
};

pub const Iq2Xs = struct {
    pub const Block = @import("../quant/iq2_xs.zig").Block;
    pub const block_len = len;
    pub const largest = limit;

    pub fn quantize(x: X, w: X, block: *Block) void {
        const found = Signed(true, .{
            .book = codebooks.iq2_xs,
            .sub_len = 16,
            .num_scales = 16,
            .unit = @import("../quant/iq2_xs.zig").unit,
        }).run(x, w);
        block.d = found.points.d;
        block.scales = joinNibbles(8, &found.points.scales);
        for (&block.words, found.points.codes, found.signs) |*word, code, signs| {
            word.* = code | @as(u16, signs & 127) << 9;
        }
    }
};

pub const Iq2S = struct {
    pub const Block = @import("../quant/iq2_s.zig").Block;
    pub const block_len = len;
    pub const largest = limit;

    pub fn quantize(x: X, w: X, block: *Block) void {
        const found = Signed(false, .{
            .book = codebooks.iq2_s,
            .sub_len = 16,
            .num_scales = 16,
            .unit = @import("../quant/iq2_s.zig").unit,
        }).run(x, w);
        block.d = found.points.d;
        block.scales = joinNibbles(8, &found.points.scales);
        block.signs = found.signs;
        block.high = @splat(0);
        for (found.points.codes, 0..) |code, i| {
            block.codes[i] = @truncate(code);
            block.high[i / 4] |= @intCast(code >> 8 << @intCast(i % 4 * 2));
        }
    }
};

pub const Iq3Xxs = struct {
    pub const Block = @import("../quant/iq3_xxs.zig").Block;
    pub const block_len = len;
    pub const largest = limit;

    pub fn quantize(x: X, w: X, block: *Block) void {
        const found = Signed(true, .{
            .book = codebooks.iq3_xxs,
            .sub_len = 32,
            .num_scales = 16,
            .unit = @import("../quant/iq3_xxs.zig").unit,
        }).run(x, w);
        block.d = found.points.d;
        for (&block.codes, found.points.codes) |*byte, code| byte.* = @intCast(code);
        for (&block.signs, 0..) |*word, j| {
            word.* = signWord(found.signs[j * 4 ..][0..4], found.points.scales[j]);
        }
    }
};

pub const Iq3S = struct {
    pub const Block = @import("../quant/iq3_s.zig").Block;
    pub const block_len = len;
    pub const largest = limit;

    pub fn quantize(x: X, w: X, block: *Block) void {
        const found = Signed(false, .{
            .book = codebooks.iq3_s,
            .sub_len = 32,
            .num_scales = 16,
            .unit = @import("../quant/iq3_s.zig").unit,
        }).run(x, w);
        block.d = found.points.d;
        block.scales = joinNibbles(4, &found.points.scales);
        block.signs = found.signs;
        block.high = @splat(0);
        for (found.points.codes, 0..) |code, i| {
            block.codes[i] = @truncate(code);
            block.high[i / 8] |= @intCast(code >> 8 << @intCast(i % 8));
        }
    }
};

/// Codes of the shifted points from here on.
const down: u16 = codebooks.iq1_s.count;

pub const Iq1S = struct {
    pub const Block = @import("../quant/iq1_s.zig").Block;
    pub const block_len = len;
    pub const largest = limit;

    pub fn quantize(x: X, w: X, block: *Block) void {
        const found = points.Search(.{
            .book = codebooks.iq1_s,
            .sub_len = 32,
            .num_scales = 8,
            .unit = @import("../quant/iq1_s.zig").unit,
            .shift = .by_sub_block,
        }).run(x, w);
        block.d = found.d;
        for (&block.high, 0..) |*word, j| {
            const codes = found.codes[j * 4 ..][0..4];
            word.* = @as(u16, found.scales[j]) << 12;
            if (codes[0] >= down) word.* |= 0x8000;
            for (codes, 0..) |code, k| {
                block.codes[j * 4 + k] = @truncate(code);
                word.* |= (code % down) >> 8 << @intCast(3 * k);
            }
        }
    }
};

pub const Iq1M = struct {
    pub const Block = @import("../quant/iq1_m.zig").Block;
    pub const block_len = len;
    pub const largest = limit;

    pub fn quantize(x: X, w: X, block: *Block) void {
        const found = points.Search(.{
            .book = codebooks.iq1_s,
            .sub_len = 16,
            .num_scales = 8,
            .unit = @import("../quant/iq1_m.zig").unit,
            .shift = .by_point,
        }).run(x, w);
        const d: u16 = @bitCast(found.d);
        for (&block.scales, 0..) |*word, i| {
            word.* = (d >> @intCast(4 * i) & 15) << 12;
            for (found.scales[i * 4 ..][0..4], 0..) |scale, k| {
                word.* |= @as(u16, scale) << @intCast(3 * k);
            }
        }
        block.high = @splat(0);
        for (found.codes, 0..) |code, i| {
            block.codes[i] = @truncate(code);
            const upper: u8 = @intCast((code % down) >> 8);
            const nibble = if (code >= down) upper | 8 else upper;
            block.high[i / 2] |= nibble << @intCast(i % 2 * 4);
        }
    }
};
