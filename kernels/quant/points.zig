//! Decoding of the IQ1 to IQ3 types by loads of their points, for machines that cannot permute bytes
//! of more than one register (point_planes.zig). A format gives the codes of 32 weights, and marks.
const simd = @import("../simd.zig");
const codebooks = @import("codebooks.zig");
const Bytes = simd.Bytes;
const Half = @Vector(32, u8);

/// Bit i of word j: whether weight 32j + i is marked.
pub const Marks = [8]u32;

/// Each weight `offset` too large. Vector `2 * half + odd`: sub-blocks of 32 `4 * half + odd` and
/// `4 * half + odd + 2`.
pub inline fn all(comptime Format: type, p: [*]const u8) [4]Bytes {
    const block: *const Format.Block = @ptrCast(p);
    const marks = Format.markWords(block);
    simd.keepInMemory(&marks);
    var result: [4]Bytes = undefined;
    inline for (&result, 0..) |*vector, t| {
        const first = t / 2 * 4 + t % 2;
        const low = thirtyTwo(Format, block, &marks, first);
        vector.* = simd.join(u8, 32, low, thirtyTwo(Format, block, &marks, first + 2));
    }
    return result;
}

/// Weights 32j to 32j + 31 of a block with these marks, each `offset` too large.
pub inline fn thirtyTwo(
    comptime Format: type,
    block: *const Format.Block,
    marks: *const Marks,
    comptime j: usize,
) Half {
    const unmarked = comptime codebooks.weightOf(0, Format.mark, false);
    const table = codebooks.weights(Format.book, Format.offset + unmarked);
    const codes: [32 / Format.book.dim]usize = Format.codesOf32(block, j);
    const weights: Half = if (Format.book.dim == 8) blk: {
        const low = simd.loadPair(table, codes[0], codes[1]);
        const high = simd.loadPair(table, codes[2], codes[3]);
        break :blk @bitCast(simd.join(u64, 2, low, high));
    } else blk: {
        var each: [8]u32 = undefined;
        inline for (&each, codes) |*point, code| point.* = @bitCast(table[code]);
        break :blk @bitCast(@as(@Vector(8, u32), each));
    };
    const word: Half = @bitCast(@as(@Vector(8, u32), @splat(marks[j])));
    const spread = @shuffle(u8, word, undefined, byteOfEight);
    const bits = simd.part(u8, 32, simd.bit_of_element, 0);
    const is_marked = (spread & bits) != @as(Half, @splat(0));
    return @select(u8, is_marked, marked(Format, weights), weights);
}
const byteOfEight: [32]i32 = blk: {
    var indices: [32]i32 = undefined;
    for (&indices, 0..) |*index, i| index.* = @intCast(i / 8);
    break :blk indices;
};

inline fn marked(comptime Format: type, weights: Half) Half {
    return switch (Format.mark) {
        .negative => @as(Half, @splat(2 * Format.offset)) -% weights,
        .one_less => weights -% @as(Half, @splat(2)),
    };
}

/// Signs stored as 7 bits per 8 weights, four times in a word: their number is even.
pub inline fn evenSigns(words: @Vector(8, u32)) Marks {
    var spread = words & splat(0x7f);
    inline for (1..4) |i| spread |= words << @splat(i) & splat(0x7f << (8 * i));
    return evenParity(spread);
}

/// Bit 7 of each byte such that the number of ones is even; it was 0.
pub inline fn evenParity(words: @Vector(8, u32)) Marks {
    const four = words ^ words >> @splat(4);
    const two = four ^ four >> @splat(2);
    const one = two ^ two >> @splat(1);
    return words | (one & splat(0x01010101)) << @splat(7);
}
inline fn splat(comptime value: u32) @Vector(8, u32) {
    return @splat(value);
}

/// Sub-scales of 4 bits, sub-block by sub-block, as 2s + 1 in the bytes of `Header.units`.
pub inline fn oddScales(scales: Bytes) Bytes {
    return scales +% scales +% @as(Bytes, @splat(1));
}
