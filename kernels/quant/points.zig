//! Decoding of the IQ1 to IQ3 types by loads of their points, for machines that cannot permute bytes
//! of more than one register (point_planes.zig): 256 weights at once.
const std = @import("std");
const simd = @import("../simd.zig");
const codebooks = @import("codebooks.zig");
const Book = codebooks.Book;
const Bytes = simd.Bytes;

pub const Codes = @Vector(32, u16);
/// One bit per weight, in order.
pub const Signs = @Vector(32, u8);
/// Vector `2 * half + odd`: sub-blocks of 32 `4 * half + odd` and `4 * half + odd + 2`.
pub const Weights = [4]Bytes;

/// 32 points of 8 weights, `offset` too large.
pub inline fn eights(comptime book: Book, comptime offset: u8, codes: Codes) Weights {
    var result: Weights = undefined;
    const table = codebooks.weights(book, offset);
    const words: [8]u64 = @as(@Vector(8, u64), @bitCast(codes));
    inline for (&result, 0..) |*vector, t| {
        var pairs: [4]@Vector(2, u64) = undefined;
        inline for (&pairs, 0..) |*pair, i| {
            const first = comptime pieceAt(8, t, 2 * i);
            const index = simd.bitField(words[first / 4], first % 4 * 16, 16);
            const second = simd.bitField(words[first / 4], (first % 4 + 1) * 16, 16);
            pair.* = simd.loadPair(&table[index], &table[second]);
        }
        vector.* = @bitCast(simd.joinFour(u64, 2, pairs));
    }
    return result;
}

/// 64 points of 4 weights, `offset` too large.
pub inline fn fours(comptime book: Book, comptime offset: u8, codes: [2]Codes) Weights {
    var result: Weights = undefined;
    const table = codebooks.weights(book, offset);
    var each: [2][32]u16 align(64) = .{ codes[0], codes[1] };
    keepInMemory(&each);
    inline for (&result, 0..) |*vector, t| {
        var points: [16]u32 = undefined;
        inline for (&points, 0..) |*point, i| {
            point.* = @bitCast(table[each[t / 2][comptime pieceAt(4, t, i) % 32]]);
        }
        vector.* = @bitCast(@as(@Vector(16, u32), points));
    }
    return result;
}

/// The piece of `length` weights that is number `i` in vector `t`.
fn pieceAt(comptime length: usize, comptime t: usize, comptime i: usize) usize {
    const per_sub = 32 / length;
    const sub = (t / 2) * 4 + t % 2 + i / per_sub * 2;
    return sub * per_sub + i % per_sub;
}

/// Which of 32 words holds the digits of each piece; all words of a piece hold them.
fn wordsOf(comptime length: usize, comptime t: usize) [32]i32 {
    @setEvalBranchQuota(10_000);
    var indices: [32]i32 = undefined;
    for (&indices, 0..) |*index, i| index.* = @intCast(pieceAt(length, t, i * 2 / length) % 32);
    return indices;
}

/// Taking 32 codes out of registers costs more than loading them.
inline fn keepInMemory(codes: anytype) void {
    asm volatile (""
        :
        : [codes] "r" (codes),
        : .{ .memory = true });
}

/// `offset` - w instead of `offset` + w where the weight's sign bit is set.
pub inline fn withSigns(comptime offset: u8, weights: Weights, signs: Signs) Weights {
    var result: Weights = undefined;
    inline for (&result, weights, 0..) |*vector, w, t| {
        const spread = @shuffle(u8, signs, undefined, signBytes(t));
        const is_negative = (spread & simd.bit_of_element) != @as(Bytes, @splat(0));
        vector.* = @select(u8, is_negative, @as(Bytes, @splat(2 * offset)) -% w, w);
    }
    return result;
}
fn signBytes(comptime t: usize) [64]i32 {
    @setEvalBranchQuota(10_000);
    var indices: [64]i32 = undefined;
    for (&indices, 0..) |*index, i| index.* = @intCast(pieceAt(8, t, i / 8));
    return indices;
}

/// Signs stored as 7 bits per 8 weights, four times in a word: their number is even.
pub inline fn evenSigns(words: @Vector(8, u32)) Signs {
    var spread = words & splat(0x7f);
    inline for (1..4) |i| spread |= words << @splat(i) & splat(0x7f << (8 * i));
    return evenParity(@bitCast(spread));
}
inline fn splat(comptime value: u32) @Vector(8, u32) {
    return @splat(value);
}

/// Bit 7 of each byte such that the number of ones is even; it was 0.
pub inline fn evenParity(bytes: Signs) Signs {
    const words: @Vector(8, u32) = @bitCast(bytes);
    const four = words ^ words >> @splat(4);
    const two = four ^ four >> @splat(2);
    const one = two ^ two >> @splat(1);
    return @bitCast(words | (one & splat(0x01010101)) << @splat(7));
}

/// Sub-scales of 4 bits, sub-block by sub-block, as 2s + 1 in the bytes of `Header.units`.
pub inline fn oddScales(scales: Bytes) Bytes {
    return scales +% scales +% @as(Bytes, @splat(1));
}

/// One less or one more than 32 points of 8 weights: less where the sign of a point's word is set.
pub inline fn shifted(weights: Weights, words: Codes) Weights {
    const signs = @as(@Vector(32, i16), @bitCast(words)) >> @splat(15);
    // Two bytes of -1, or two of 1.
    const changes = @as(Codes, @bitCast(signs)) | @as(Codes, @splat(0x0101));
    var result: Weights = undefined;
    inline for (&result, weights, 0..) |*vector, w, t| {
        vector.* = w +% @as(Bytes, @bitCast(@shuffle(u16, changes, undefined, wordsOf(8, t))));
    }
    return result;
}

/// Each of 8 elements for four neighbours.
pub const fourOfEach: [32]i32 = blk: {
    var indices: [32]i32 = undefined;
    for (&indices, 0..) |*index, i| index.* = @intCast(i / 4);
    break :blk indices;
};
pub inline fn repeated(comptime T: type, comptime v: [4]T) @Vector(32, T) {
    return comptime v ++ v ++ v ++ v ++ v ++ v ++ v ++ v;
}
