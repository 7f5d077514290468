//! What the formats with 32 weights a quant block share for the dot kernels: four neighbouring
//! quant blocks as two vectors, 128-bit lane j = block j: elements 0..15, then elements 16..31.
const std = @import("std");
const simd = @import("../simd.zig");
const Bytes = simd.Bytes;

pub const Quants = [2]Bytes;

/// Lane j = the 16 bytes at `p + j * stride + start`. Reads `p .. p + 4 * stride` only.
pub inline fn lanes(p: [*]const u8, comptime stride: usize, comptime start: usize) Bytes {
    if (!simd.has_avx512) return simd.loadLanes(p + start, stride);
    // The first three lanes from one load by one byte permute, the fourth by a masked load. The
    // load at the blocks' start is the one that the scales need too.
    const base = if (2 * stride + start + 16 <= 64) 0 else start;
    const first = simd.load(Bytes, p + base);
    const last = simd.load(Bytes, p + 3 * stride + start - 48);
    const three = @shuffle(u8, first, undefined, laneIndices(stride, start - base));
    return @select(u8, fourth_lane, last, three);
}
const fourth_lane: @Vector(64, bool) = @as([48]bool, @splat(false)) ++ @as([16]bool, @splat(true));

fn laneIndices(comptime stride: usize, comptime start: usize) [64]i32 {
    @setEvalBranchQuota(100_000);
    var indices: [64]i32 = @splat(0);
    for (0..48) |i| indices[i] = @intCast((i / 16) * stride + start + i % 16);
    return indices;
}

/// Low and high nibbles of the packed bytes.
pub inline fn nibbles(packed_bytes: Bytes) Quants {
    return .{ simd.bits(packed_bytes, .{ 0, 0 }, 4, 0), simd.bits(packed_bytes, .{ 4, 4 }, 4, 0) };
}

/// The level of every nibble as a byte, `offset` too large.
pub inline fn lookUp(low: Quants, comptime levels: [16]i8, comptime offset: u8) Quants {
    return .{ simd.lookUp16(low[0], levels, offset), simd.lookUp16(low[1], levels, offset) };
}

/// Adds 16 to element i of block j where bit i of the 32 bits at `p + j * stride + start` is set.
pub inline fn addFifthBits(
    low: Quants,
    p: [*]const u8,
    comptime stride: usize,
    comptime start: usize,
) Quants {
    var result: Quants = undefined;
    inline for (0..2) |half| {
        const is_set = (spreadBits(p, stride, start, half) & simd.bit_of_element) != zero;
        result[half] = @select(u8, is_set, low[half] +% @as(Bytes, @splat(16)), low[half]);
    }
    return result;
}
const zero: Bytes = @splat(0);

/// The byte that holds each element's bit; `half` 0 is elements 0..15 of the four blocks.
inline fn spreadBits(
    p: [*]const u8,
    comptime stride: usize,
    comptime start: usize,
    comptime half: usize,
) Bytes {
    const size = 4 * stride;
    if (simd.has_avx512) {
        const first = simd.load(Bytes, p);
        const last = simd.load(Bytes, p + size - 64);
        return @shuffle(u8, first, last, bitBytes(stride, start + 2 * half, size - 64));
    }
    var words: [4]@Vector(4, u32) = undefined;
    inline for (0..4) |j| words[j] = @splat(simd.load(u32, p + j * stride + start));
    const all: Bytes = @bitCast(simd.joinFour(u32, 4, words));
    return @shuffle(u8, all, undefined, bitBytes(16, 2 * half, 0));
}
/// Indices of those bytes; block 3 comes from the second vector, `second` bytes further on.
fn bitBytes(comptime stride: usize, comptime start: usize, comptime second: usize) [64]i32 {
    @setEvalBranchQuota(100_000);
    var indices: [64]i32 = undefined;
    for (0..64) |i| {
        const at: i32 = @intCast(i / 16 * stride + start + i % 16 / 8);
        indices[i] = if (i < 48 or second == 0) at else ~(at - @as(i32, second));
    }
    return indices;
}

pub const Halves = @Vector(16, f16);

/// The F16 at byte `start` of blocks j = 0..3 of four rows: element 4j + i = block j of row i.
pub inline fn scales(
    p: [4][*]const u8,
    comptime stride: usize,
    comptime start: usize,
) simd.Floats {
    var all: Halves = undefined;
    if (simd.has_avx512) {
        inline for (0..4) |i| all = pickScales(all, p[i], i, stride, start);
    } else {
        var each: [16]f16 = undefined;
        inline for (0..16) |k| each[k] = simd.load(f16, p[k % 4] + (k / 4) * stride + start);
        all = each;
    }
    return simd.widenHalves(16, all);
}

/// AVX-512: one word permute per row and 64 bytes, merged into the elements of row `i`.
inline fn pickScales(
    all: Halves,
    p: [*]const u8,
    comptime i: usize,
    comptime stride: usize,
    comptime start: usize,
) Halves {
    const Loaded = @Vector(32, f16);
    const reach = 3 * stride + start + 2;
    if (reach <= 64) {
        const one = @shuffle(f16, simd.load(Loaded, p), undefined, scaleIndices(stride, start));
        return if (i == 0) one else @select(f16, comptime rowMask(i, 0, 4), one, all);
    }
    const second = @min(2 * stride, 4 * stride - 64);
    const low = @shuffle(f16, simd.load(Loaded, p), undefined, scaleIndices(stride, start));
    const first_two = if (i == 0) low else @select(f16, comptime rowMask(i, 0, 2), low, all);
    const offset = 2 * stride - second + start;
    const high = @shuffle(
        f16,
        simd.load(Loaded, p + second),
        undefined,
        scaleIndices(stride, offset),
    );
    return @select(f16, comptime rowMask(i, 2, 4), high, first_two);
}
/// Elements 4j..4j+3 from the word of block j, or of block j mod 2 where block j is out of reach.
fn scaleIndices(comptime stride: usize, comptime start: usize) [16]i32 {
    const period = if (3 * stride + start + 2 <= 64) 4 else 2;
    var indices: [16]i32 = undefined;
    for (0..16) |k| indices[k] = @intCast((((k / 4) % period) * stride + start) / 2);
    return indices;
}
fn rowMask(comptime i: usize, comptime first: usize, comptime end: usize) @Vector(16, bool) {
    var mask: [16]bool = @splat(false);
    for (first..end) |j| mask[j * 4 + i] = true;
    return mask;
}

/// The F16 at offset `starts[j]` of four rows: element 4j + i = that of row i.
pub inline fn scalesAt(p: [4][*]const u8, comptime starts: [4]usize) simd.Floats {
    var each: [16]f16 = undefined;
    inline for (0..16) |k| each[k] = simd.load(f16, p[k % 4] + starts[k / 4]);
    return simd.widenHalves(16, each);
}

/// The byte at offset `starts[j]` of four rows: element 4j + i = that of row i.
pub inline fn scaleBytes(p: [4][*]const u8, comptime starts: [4]usize) @Vector(16, u32) {
    if (!simd.has_avx512) {
        var each: [16]u8 = undefined;
        inline for (0..16) |k| each[k] = p[k % 4][starts[k / 4]];
        return @as(@Vector(16, u8), each);
    }
    comptime var indices: [64]i32 = @splat(0);
    comptime for (0..16) |k| {
        indices[4 * k] = @intCast(starts[k / 4]);
    };
    var words: @Vector(16, u32) = undefined;
    inline for (0..4) |i| {
        const own = @shuffle(u8, simd.load(Bytes, p[i]), undefined, indices);
        const bytes: @Vector(16, u32) = @bitCast(own);
        words = if (i == 0) bytes else @select(u32, comptime rowMask(i, 0, 4), bytes, words);
    }
    return words & @as(@Vector(16, u32), @splat(0xff));
}
