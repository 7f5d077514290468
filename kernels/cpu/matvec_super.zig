//! Few activation rows against K-quants: four weight rows at once, one quant block of 256 a step.
//! Scales are applied in integers, so a block's sum is exact; floats are added block by block.
const std = @import("std");
const simd = @import("../simd.zig");
const dots = @import("../dots.zig");
const super_block = @import("../quant/super_block.zig");
const point_planes = @import("../quant/point_planes.zig");
const points = @import("matvec_points.zig");
const Span = @import("matvec_span.zig").Span;
const Ahead = @import("matvec_span.zig").Ahead;
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
    for (0..span.count) |r| {
        var rows: [4][*]const u8 = undefined;
        inline for (0..4) |i| rows[i] = span.weight + span.row(i, r) * row_bytes;
        var ahead: Ahead = .{ .distance = span.prefetch_bytes };
        var acc: [M]Floats4 = @splat(@splat(0));
        for (0..k / 256) |step| {
            const size = @sizeOf(Q.Block);
            var p: [4][*]const u8 = undefined;
            inline for (0..4) |i| p[i] = rows[i] + step * size;
            addBlock(Q, M, p, step, input, &acc);
            ahead.ask(rows, size, (step + 1) * size);
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
    const rule: Rule = comptime .of(Q);
    const header = Q.header(p);
    const units = Units.of(rule, &header);
    if (@hasDecl(Q, "book")) {
        const sums = points.sumsOfFour(Q, M, p, &header, step, input);
        return finish(rule, M, &header, &units, Q.offset, sums, step, input, acc);
    }
    var sums: [M][4]Ints = @splat(@splat(@splat(0)));
    const wide = if (rule.form == .wide) laneActivations(M, step, input) else {};
    inline for (0..4) |i| {
        if (rule.form == .wide) {
            inline for (0..2) |half| addWideHalf(Q, M, i, half, p[i], &units, &wide, &sums);
            continue;
        }
        if (simd.has_vnni512 and @hasDecl(Q, "quads_fit")) {
            inline for (0..2) |half| addHalf(Q, M, i, half, p[i], &units, step, input, &sums);
            continue;
        }
        const all = if (@hasDecl(Q, "all")) Q.all(p[i]) else {};
        inline for (0..4) |t| {
            const quants = if (@hasDecl(Q, "all")) all[t] else Q.quants(p[i], t / 2, t % 2);
            addVector(rule, M, i, t, quants, &units, step, input, &sums);
        }
    }
    finish(rule, M, &header, &units, Q.offset, sums, step, input, acc);
}

/// Everything about a format that the products depend on, apart from the value of its offset.
const Rule = struct {
    sub_len: u16,
    form: super_block.Form,
    signed_scales: bool,
    has_offset: bool,
    mins: super_block.Mins,

    fn of(comptime Q: type) Rule {
        return .{
            .sub_len = Q.sub_len,
            .form = Q.form,
            .signed_scales = Q.signed_scales,
            .has_offset = Q.offset != 0 and !point_planes.areOf(Q),
            .mins = Q.mins,
        };
    }
};

/// The integer scales of four rows.
const Units = struct {
    /// Rows 0 and 1, rows 2 and 3.
    words: [2]Words,
    /// Per row, for form `wide`.
    ints: [4]Ints,

    inline fn of(comptime rule: Rule, header: *const super_block.Header) Units {
        var units: Units = undefined;
        if (rule.sub_len == 256) return units;
        units.words = widen(rule.signed_scales, header.units);
        if (rule.form == .wide) inline for (&units.ints, 0..) |*row, i| {
            const lane = simd.part(u8, 16, header.units, i * 16);
            row.* = if (rule.signed_scales) @as(@Vector(16, i8), @bitCast(lane)) else lane;
        };
        return units;
    }
};

/// Adds the products of vector `t` of weight row `i`.
inline fn addVector(
    comptime rule: Rule,
    comptime M: usize,
    comptime i: usize,
    comptime t: usize,
    quants: simd.Bytes,
    units: *const Units,
    step: usize,
    input: *const [M]SuperRow,
    sums: *[M][4]Ints,
) void {
    const scales = if (rule.sub_len == 256)
        0
    else
        dots.laneScales(units.words[i / 2], comptime unitsOf(rule.sub_len, t, (i % 2) * 16));
    inline for (0..M) |m| {
        const q = simd.load(simd.Bytes, input[m].q + step * 256 + t * 64);
        const sum = &sums[m][i];
        sum.* = if (rule.sub_len == 256) dots.dot4(sum.*, quants, q) else switch (rule.form) {
            .narrow => dots.dotScaled(sum.*, quants, q, scales),
            .wide => comptime unreachable, // addWideHalf
            .signed => dots.dotScaledSigned(sum.*, quants, q, scales),
        };
    }
}

/// Adds the products of one half of weight row `i`: quads are scaled two vectors at a time, which
/// takes three multiplications, not four.
inline fn addHalf(
    comptime Q: type,
    comptime M: usize,
    comptime i: usize,
    comptime half: usize,
    p: [*]const u8,
    units: *const Units,
    step: usize,
    input: *const [M]SuperRow,
    sums: *[M][4]Ints,
) void {
    const base = (i % 2) * 16;
    const scales = dots.quadScales(units.words[i / 2], comptime .{
        unitsOf(Q.sub_len, 2 * half, base),
        unitsOf(Q.sub_len, 2 * half + 1, base),
    });
    const quants = [2]simd.Bytes{ Q.quants(p, half, 0), Q.quants(p, half, 1) };
    inline for (0..M) |m| {
        const q = input[m].q + step * 256 + half * 128;
        const both = [2]simd.Bytes{ simd.load(simd.Bytes, q), simd.load(simd.Bytes, q + 64) };
        sums[m][i] = dots.dotQuadsScaled(sums[m][i], quants, both, scales);
    }
}

/// Of each half of a block: lane j of both vectors is sub-block 4 * half + j, so that the products
/// of both share its scale.
fn LaneActivations(comptime M: usize) type {
    return [M][2][2]simd.Bytes;
}

inline fn laneActivations(
    comptime M: usize,
    step: usize,
    input: *const [M]SuperRow,
) LaneActivations(M) {
    var lanes: LaneActivations(M) = undefined;
    inline for (0..M) |m| inline for (0..2) |half| {
        const q = input[m].q + step * 256 + half * 128;
        const even = simd.load(Ints, q);
        const odd = simd.load(Ints, q + 64);
        inline for (0..2) |part| {
            const mixed = mixLanes(even, odd, .{ part, part, part + 2, part + 2 });
            lanes[m][half][part] = @bitCast(mixed);
        }
    };
    return lanes;
}

/// Adds the products of one half of weight row `i` in form `wide`.
inline fn addWideHalf(
    comptime Q: type,
    comptime M: usize,
    comptime i: usize,
    comptime half: usize,
    p: [*]const u8,
    units: *const Units,
    activations: *const LaneActivations(M),
    sums: *[M][4]Ints,
) void {
    const first = 4 * half;
    const scales = wideScales(units.ints[i], .{ first, first + 1, first + 2, first + 3 });
    const quants = Q.laneQuants(p, half);
    inline for (0..M) |m| {
        const own = activations[m][half];
        const zero: Ints = @splat(0);
        const products = dots.dot4(dots.dot4(zero, quants[0], own[0]), quants[1], own[1]);
        sums[m][i] +%= products *% scales;
    }
}

/// The block's exact sums as floats, added to the accumulators.
inline fn finish(
    comptime rule: Rule,
    comptime M: usize,
    header: *const super_block.Header,
    units: *const Units,
    offset: i32,
    sums: [M][4]Ints,
    step: usize,
    input: *const [M]SuperRow,
    acc: *[M]Floats4,
) void {
    const Sums = @Vector(16, i16);
    inline for (0..M) |m| {
        const of_16 = simd.load(Sums, input[m].sums + step * 32);
        // Zeros beside the first eight scales, sums of 32 beside the others.
        const of_32 = simd.load(Sums, input[m].sums + step * 32 + 16);
        var s = simd.sumLanes(simd.sumQuads(sums[m]));
        if (rule.has_offset) {
            const excess = switch (rule.sub_len) {
                16 => unitProduct(units.words, of_16),
                32 => unitProduct(units.words, of_32),
                256 => @as(Ints4, @splat(@reduce(.Add, @as(Ints, of_16)))),
                else => comptime unreachable,
            };
            s -%= excess *% @as(Ints4, @splat(offset));
        }
        var t = @as(Floats4, @floatFromInt(s)) * header.d;
        if (rule.mins != .none) {
            const min_sum = switch (rule.mins) {
                .beside_scales => unitProduct(units.words, of_32),
                .apart => unitProduct(widen(false, header.mins), of_16),
                .none => unreachable,
            };
            t = simd.fma(Floats4, -@as(Floats4, @floatFromInt(min_sum)), header.dmin, t);
        }
        acc[m] = simd.fmaBy(Floats4, t, input[m].d[step], acc[m]);
    }
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

/// The scales of the four lanes of a vector.
inline fn wideScales(units: Ints, comptime indices: [4]usize) Ints {
    comptime var mask: [16]i32 = undefined;
    comptime for (&mask, 0..) |*index, k| {
        index.* = @intCast(indices[k / 4]);
    };
    return @shuffle(i32, units, undefined, mask);
}

/// Lane i = lane `of[i]` of `a` where i is even, of `b` where it is odd.
inline fn mixLanes(a: Ints, b: Ints, comptime of: [4]usize) Ints {
    comptime var mask: [16]i32 = undefined;
    comptime for (&mask, 0..) |*index, i| {
        const from: i32 = @intCast(of[i / 4] * 4 + i % 4);
        index.* = if (i / 4 % 2 == 0) from else ~from;
    };
    return @shuffle(i32, a, b, mask);
}

/// Element i = the sum over the 16 units of row i's value times `v`.
inline fn unitProduct(units: [2]Words, v: @Vector(16, i16)) Ints4 {
    const twice = simd.join(i16, 16, v, v);
    const a = dots.multiplyPairs(units[0], twice);
    const b = dots.multiplyPairs(units[1], twice);
    // 128-bit lane i: four partial sums of row i.
    const low = simd.joinLanes(a, b, .{ 0, 2 });
    const high = simd.joinLanes(a, b, .{ 1, 3 });
    const rows = low +% high;
    const pairs = rows +% simd.shuffleLanes(i32, rows, rows, .{ 1, 0, 3, 2 });
    const all = pairs +% simd.shuffleLanes(i32, pairs, pairs, .{ 2, 3, 0, 1 });
    return @shuffle(i32, all, undefined, [4]i32{ 0, 4, 8, 12 });
}
