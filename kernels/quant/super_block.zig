//! What the K-quants (256 weights a quant block, sub-blocks of 16 or 32 with integer scales) share
//! for the dot kernels, which take four rows at once.
const std = @import("std");
const simd = @import("../simd.zig");
const planes = @import("point_planes.zig");
const points = @import("points.zig");
const Bytes = simd.Bytes;

pub const Mins = enum {
    none,
    /// Bytes 8..15 of `Header.units`: one per sub-block of 32.
    beside_scales,
    /// `Header.mins`: one per sub-block of 16.
    apart,
};

/// What the bytes of `quants` are, and so how they are multiplied.
pub const Form = enum {
    /// Up to 127 after adding `offset`.
    narrow,
    /// Up to 255 after adding `offset`; only where `dots.wide_unsigned`.
    wide,
    /// Signed, from -127 to 127; `offset` is 0.
    signed,
};

/// The scales of one quant block in each of four rows; 128-bit lane i is row i.
pub const Header = struct {
    /// By sub-block 16 scale bytes, or 8 scales and 8 mins, or 8 scales twice; unused where
    /// `sub_len` is 256.
    units: Bytes,
    mins: Bytes = @splat(0),
    d: simd.Floats4,
    dmin: simd.Floats4 = @splat(0),
};

/// The 16 bytes at `offset` of each row.
pub inline fn lanes(p: [4][*]const u8, comptime offset: usize) Bytes {
    var each: [4]@Vector(16, u8) = undefined;
    inline for (0..4) |i| each[i] = simd.load(@Vector(16, u8), p[i] + offset);
    return simd.joinFour(u8, 16, each);
}

/// The F16 at `offset` of each row.
pub inline fn halves(p: [4][*]const u8, comptime offset: usize) simd.Floats4 {
    var each: [4]f16 = undefined;
    inline for (0..4) |i| each[i] = simd.load(f16, p[i] + offset);
    return simd.widenHalves(4, each);
}

/// The F16 at `offset` of each row, and the one behind it.
pub inline fn halfPairs(p: [4][*]const u8, comptime offset: usize) [2]simd.Floats4 {
    var each: [4]u32 = undefined;
    inline for (0..4) |i| each[i] = simd.load(u32, p[i] + offset);
    const both: @Vector(8, f16) = @bitCast(@as(@Vector(4, u32), each));
    const wide = simd.widenHalves(8, both);
    return std.simd.deinterlace(2, wide);
}

/// Q4_K and Q5_K begin alike: d, dmin, 8 scales and 8 mins of 6 bits in 12 bytes.
pub inline fn sixBitHeader(p: [4][*]const u8) Header {
    const U = @Vector(16, u32);
    const rows: U = @bitCast(lanes(p, 0));
    const low_or_top = simd.shuffleLanes(u32, rows, rows, .{ 1, 1, 2, 2 }) >>
        repeat(u5, .{ 0, 2, 0, 2 });
    const nibble = simd.shuffleLanes(u32, rows, rows, .{ 3, 3, 3, 3 }) >>
        repeat(u5, .{ 0, 0, 0, 4 });
    const six = low_or_top & repeat(u32, .{ 0x3f3f3f3f, 0x30303030, 0x3f3f3f3f, 0x30303030 });
    const four = nibble & repeat(u32, .{ 0, 0x0f0f0f0f, 0, 0x0f0f0f0f });
    const both: @Vector(8, f16) = @shuffle(
        f16,
        @as(@Vector(32, f16), @bitCast(rows)),
        undefined,
        [8]i32{ 0, 8, 16, 24, 1, 9, 17, 25 },
    );
    const wide = simd.widenHalves(8, both);
    return .{
        .units = @bitCast(six | four),
        .d = simd.part(f32, 4, wide, 0),
        .dmin = simd.part(f32, 4, wide, 4),
    };
}
pub inline fn repeat(comptime T: type, comptime v: [4]T) @Vector(16, T) {
    return comptime v ++ v ++ v ++ v;
}

/// Scale and min of sub-block `j` of 32, from the 12 bytes of Q4_K and Q5_K.
pub fn scaleAndMin(bytes: *const [12]u8, j: usize) [2]u8 {
    if (j < 4) return .{ bytes[j] & 63, bytes[j + 4] & 63 };
    const scale = (bytes[j + 4] & 15) | (bytes[j - 4] >> 6 << 4);
    const min = (bytes[j + 4] >> 4) | (bytes[j] >> 6 << 4);
    return .{ scale, min };
}

/// The weights of a quant block, `offset` too large. Vector `2 * half + odd`: sub-blocks of 32
/// `4 * half + odd` and `4 * half + odd + 2`.
inline fn decode(comptime Format: type, p: [*]const u8) [4]Bytes {
    if (comptime planes.areOf(Format)) return decodeFour(Format, @splat(p))[0];
    if (@hasDecl(Format, "book")) return points.all(Format, p);
    if (@hasDecl(Format, "all")) return Format.all(p);
    var decoded: [4]Bytes = undefined;
    inline for (&decoded, 0..) |*vector, t| vector.* = Format.quants(p, t / 2, t % 2);
    return decoded;
}

/// Those of four, each as `decode` gives it; some are decoded together.
pub inline fn decodeFour(comptime Format: type, p: [4][*]const u8) [4][4]Bytes {
    var decoded: [4][4]Bytes = undefined;
    if (comptime planes.areOf(Format)) {
        inline for (&decoded, planes.ofFour(Format, p)) |*own, block| own.* = planes.inOrder(block);
    } else {
        inline for (&decoded, p) |*own, block| own.* = decode(Format, block);
    }
    return decoded;
}

/// Expands one block of a format without mins by what its dot kernels decode: the product of d,
/// scale and weight is exact, so that its order does not matter.
pub fn dequantize(comptime Format: type, p: [*]const u8, output: *[256]f32) void {
    const block_header = Format.header(.{ p, p, p, p });
    const units: [64]u8 = block_header.units;
    for (decode(Format, p), 0..) |vector, t| {
        const weights: [64]u8 = vector;
        const first = t / 2 * 4 + t % 2;
        for (weights, 0..) |byte, i| {
            const e = (first + i / 32 * 2) * 32 + i % 32;
            const w = @as(i32, byte) - Format.offset;
            const scale: i32 = units[e / Format.sub_len];
            output[e] = block_header.d[0] * @as(f32, @floatFromInt(scale * w));
        }
    }
}

/// 8 scales per row, each row's twice: the second eight meet the sums of 32.
pub inline fn twice(rows: [4]@Vector(8, u8)) Bytes {
    var each: [4]@Vector(16, u8) = undefined;
    inline for (rows, &each) |row, *lane| lane.* = simd.join(u8, 8, row, row);
    return simd.joinFour(u8, 16, each);
}

/// The 16 nibbles of the 8 bytes at `offset` of each row, low ones first.
pub inline fn nibbleUnits(p: [4][*]const u8, comptime offset: usize) Bytes {
    var each: [4]@Vector(8, u8) = undefined;
    inline for (&each, p) |*bytes, row| bytes.* = simd.load(@Vector(8, u8), row + offset);
    const Words = @Vector(32, u16);
    const words: Words = simd.joinFour(u8, 8, each);
    return @bitCast((words | words << @splat(4)) & @as(Words, @splat(0x0f0f)));
}
