//! Few activation rows against K-quants: four weight rows at once, one quant block of 256 a step.
//! Scales are applied in integers, so a block's sum is exact (notes/canonical-order.md).
const std = @import("std");
const simd = @import("../simd.zig");
const Span = @import("matvec_span.zig").Span;
const SuperRow = @import("activation.zig").SuperRow;
const Floats4 = simd.Floats4;
const Ints = simd.Ints;
const Ints4 = simd.Ints4;
const Words = simd.Words;

/// Products of the span's weight rows with M activation rows, `out` laid out as Span says.
pub fn multiply(
    comptime Q: type,
    comptime M: usize,
    span: Span,
    k: usize,
    input: *const [M]SuperRow,
    out: [*]f32,
    out_stride: usize,
) void {
    const row_bytes = k / 256 * @sizeOf(Q.Block);
    const prefetch_lines = (@sizeOf(Q.Block) + 16) / 64;
    for (0..span.count) |r| {
        var p: [4][*]const u8 = undefined;
        inline for (0..4) |i| p[i] = span.weight + span.row(i, r) * row_bytes;
        var acc: [M]Floats4 = @splat(@splat(0));
        for (0..k / 256) |step| {
            addBlock(Q, M, p, step, input, &acc);
            inline for (0..4) |i| {
                inline for (0..prefetch_lines) |line| {
                    simd.prefetch(p[i] + span.prefetch_bytes + line * 64);
                }
                p[i] += @sizeOf(Q.Block);
            }
        }
        inline for (0..M) |m| inline for (0..4) |i| {
            out[m * out_stride + i * span.count + r] = acc[m][i];
        };
    }
}

inline fn addBlock(
    comptime Q: type,
    comptime M: usize,
    p: [4][*]const u8,
    step: usize,
    input: *const [M]SuperRow,
    acc: *[M]Floats4,
) void {
    const header = Q.header(p);
    const units = if (Q.sub_len == 256) undefined else widen(Q.signed_scales, header.units);
    var sums: [M][4]Ints = @splat(@splat(@splat(0)));
    inline for (0..4) |i| {
        const whole = if (@hasDecl(Q, "all")) Q.all(p[i]) else {};
        const wide = if (Q.form == .wide) widenAgain(Q.signed_scales, header.units, i) else {};
        inline for (0..4) |t| {
            const quants = if (@hasDecl(Q, "all")) whole[t] else Q.quants(p[i], t / 2, t % 2);
            const scales = if (Q.sub_len == 256)
                0
            else if (Q.form == .wide)
                wideScales(wide, unitsOf(Q.sub_len, t, 0))
            else
                simd.laneScales(units[i / 2], unitsOf(Q.sub_len, t, (i % 2) * 16));
            inline for (0..M) |m| {
                const q = simd.load(simd.Bytes, input[m].q + step * 256 + t * 64);
                sums[m][i] = multiplyAdd(Q, sums[m][i], quants, q, scales);
            }
        }
    }
    inline for (0..M) |m| {
        const by_unit = simd.load(@Vector(16, i16), input[m].sums + step * 32);
        var s = simd.sumLanes(simd.sumQuads(sums[m]));
        if (Q.offset != 0) {
            const excess = switch (Q.sub_len) {
                16 => unitProduct(units, by_unit),
                // Sums of 32 lie beside zeros: half of the scales meet them.
                32 => unitProduct(
                    units,
                    simd.load(@Vector(16, i16), input[m].sums + step * 32 + 16),
                ),
                256 => @as(Ints4, @splat(@reduce(.Add, @as(Ints, by_unit)))),
                else => comptime unreachable,
            };
            s -%= excess *% @as(Ints4, @splat(Q.offset));
        }
        var t = @as(Floats4, @floatFromInt(s)) * header.d;
        if (Q.mins != .none) {
            const min_sum = switch (Q.mins) {
                // Zeros beside the scales, sums of 32 beside the mins.
                .beside_scales => unitProduct(
                    units,
                    simd.load(@Vector(16, i16), input[m].sums + step * 32 + 16),
                ),
                .apart => unitProduct(widen(false, header.mins), by_unit),
                .none => unreachable,
            };
            t = simd.fma(Floats4, -@as(Floats4, @floatFromInt(min_sum)), header.dmin, t);
        }
        acc[m] = simd.fma(Floats4, t, @splat(input[m].d[step]), acc[m]);
    }
}

inline fn multiplyAdd(comptime Q: type, acc: Ints, w: simd.Bytes, a: simd.Bytes, scales: anytype) Ints {
    if (Q.sub_len == 256) return simd.dot4(acc, w, a);
    return switch (Q.form) {
        .narrow => simd.dotScaled(acc, w, a, scales),
        .wide => simd.dotScaledWide(acc, w, a, scales),
        .signed => simd.dotScaledSigned(acc, w, a, scales),
    };
}

/// Which scale belongs to each 128-bit lane of vector `t` of a quant block.
fn unitsOf(comptime sub_len: usize, comptime t: usize, comptime base: usize) [4]usize {
    const first = (t / 2) * 4 + t % 2;
    const sub = [4]usize{ first, first, first + 2, first + 2 };
    var units: [4]usize = undefined;
    for (0..4) |lane| {
        units[lane] = base + if (sub_len == 32) sub[lane] else sub[lane] * 2 + lane % 2;
    }
    return units;
}

/// 16 bytes of each of four rows as 16-bit integers: rows 0 and 1, rows 2 and 3.
inline fn widen(comptime signed: bool, bytes: simd.Bytes) [2]Words {
    var words: [2]Words = undefined;
    inline for (0..2) |pair| {
        const half = simd.part(u8, 32, bytes, pair * 32);
        words[pair] = if (signed) @as(@Vector(32, i8), @bitCast(half)) else half;
    }
    return words;
}

/// The 16 bytes of row `i` as 32-bit integers.
inline fn widenAgain(comptime signed: bool, bytes: simd.Bytes, comptime i: usize) Ints {
    const lane = simd.part(u8, 16, bytes, i * 16);
    return if (signed) @as(@Vector(16, i8), @bitCast(lane)) else lane;
}
inline fn wideScales(units: Ints, comptime indices: [4]usize) Ints {
    comptime var mask: [16]i32 = undefined;
    comptime for (&mask, 0..) |*index, k| {
        index.* = @intCast(indices[k / 4]);
    };
    return @shuffle(i32, units, undefined, mask);
}

/// Element i = the sum over the 16 units of row i's value times `v`.
inline fn unitProduct(units: [2]Words, v: @Vector(16, i16)) Ints4 {
    const twice = simd.join(i16, 16, v, v);
    const a = simd.multiplyPairs(units[0], twice);
    const b = simd.multiplyPairs(units[1], twice);
    // 128-bit lane i: four partial sums of row i.
    const low = simd.joinLanes(a, b, .{ 0, 2 });
    const high = simd.joinLanes(a, b, .{ 1, 3 });
    const rows = low +% high;
    const pairs = rows +% simd.shuffleLanes(i32, rows, rows, .{ 1, 0, 3, 2 });
    const all = pairs +% simd.shuffleLanes(i32, pairs, pairs, .{ 2, 3, 0, 1 });
    return @shuffle(i32, all, undefined, [4]i32{ 0, 4, 8, 12 });
}
