//! The searches for a block's scale: candidates lie in the lanes of one vector and the elements are
//! walked in order, four sums side by side, so that no sum is ever taken across lanes. All of them
//! make the weighted squared error small.
const std = @import("std");
const codes_file = @import("codes.zig");
const inverse = codes_file.inverse;

/// Elements walked together; every count of elements is a multiple.
const num_chains = 4;

fn Chains(comptime k: usize) type {
    return struct {
        sums: [num_chains]@Vector(k, f32) = @splat(@splat(0)),

        fn total(chains: @This()) @Vector(k, f32) {
            return (chains.sums[0] + chains.sums[1]) + (chains.sums[2] + chains.sums[3]);
        }
    };
}

fn ScaleFit(comptime k: usize) type {
    return struct {
        scale: @Vector(k, f32),
        /// Sum of w * q^2: how much the error grows with a wrong scale.
        stiffness: @Vector(k, f32),
        /// The lane with the smallest error.
        best: usize,
    };
}

/// The codes of x times each candidate, and the scale that suits them best: for codes q that is
/// sum(w x q) / sum(w q^2), and it lowers the error by sum(w x q)^2 / sum(w q^2).
pub fn fitScale(
    comptime Codes: type,
    comptime k: usize,
    x: []const f32,
    w: []const f32,
    candidates: @Vector(k, f32),
) ScaleFit(k) {
    const V = @Vector(k, f32);
    var xq: Chains(k) = .{};
    var qq: Chains(k) = .{};
    var i: usize = 0;
    while (i < x.len) : (i += num_chains) {
        inline for (0..num_chains) |c| {
            const q = Codes.nearest(k, @as(V, @splat(x[i + c])) * candidates);
            const wq = @as(V, @splat(w[i + c])) * q;
            xq.sums[c] += wq * @as(V, @splat(x[i + c]));
            qq.sums[c] += wq * q;
        }
    }
    const stiffness = qq.total();
    const scale = xq.total() * inverse(k, stiffness);
    return .{ .scale = scale, .stiffness = stiffness, .best = greatest(k, xq.total() * scale) };
}

const Chosen = struct { lane: usize, err: f32 };

/// The lane whose settled scale and offset leave the smallest error.
pub fn chooseScale(
    comptime Codes: type,
    comptime k: usize,
    x: []const f32,
    w: []const f32,
    scales: @Vector(k, f32),
    offsets: ?@Vector(k, f32),
) Chosen {
    const V = @Vector(k, f32);
    const inverses = inverse(k, scales);
    var errs: Chains(k) = .{};
    var i: usize = 0;
    while (i < x.len) : (i += num_chains) {
        inline for (0..num_chains) |c| {
            var target: V = @splat(x[i + c]);
            if (offsets) |b| target -= b;
            const off = Codes.nearest(k, target * inverses) * scales - target;
            errs.sums[c] += @as(V, @splat(w[i + c])) * off * off;
        }
    }
    const err = errs.total();
    const best = greatest(k, -err);
    return .{ .lane = best, .err = @as([k]f32, err)[best] };
}

/// The best scale that an F16 holds: every candidate's fit, compared as it is stored.
pub fn fitHalf(
    comptime Codes: type,
    comptime k: usize,
    x: []const f32,
    w: []const f32,
    candidates: @Vector(k, f32),
) struct { scale: f16, err: f32 } {
    var halves = codes_file.toHalves(k, fitScale(Codes, k, x, w, candidates).scale);
    // Where an F16 rounds to zero, its smallest value may still serve: half of the lanes try.
    const is_zero = halves == @as(@Vector(k, f16), @splat(0));
    halves = @select(f16, is_zero, comptime smallestOrZero(k), halves);
    const chosen = chooseScale(Codes, k, x, w, @as(@Vector(k, f32), halves), null);
    return .{ .scale = @as([k]f16, halves)[chosen.lane], .err = chosen.err };
}

fn smallestOrZero(comptime k: usize) [k]f16 {
    var list: [k]f16 = @splat(0);
    for (list[0 .. k / 2]) |*half| half.* = std.math.floatTrueMin(f16);
    return list;
}

/// The squared error that one scale leaves; the elements lie in lanes here, for one scale alone.
pub fn errorOf(
    comptime Codes: type,
    comptime n: usize,
    x: *const [n]f32,
    w: *const [n]f32,
    scale: f32,
    offset: f32,
) f32 {
    const W = @Vector(n, f32);
    const target = @as(W, x.*) - @as(W, @splat(offset));
    const q = Codes.nearest(n, target * @as(W, @splat(inverse(1, .{scale})[0])));
    const off = q * @as(W, @splat(scale)) - target;
    return codes_file.sum(n, @as(W, w.*) * off * off);
}

/// The scale that suits the codes of `scale` best.
pub fn refitScale(
    comptime Codes: type,
    comptime n: usize,
    x: *const [n]f32,
    w: *const [n]f32,
    scale: f32,
) f32 {
    const W = @Vector(n, f32);
    const q = Codes.nearest(n, @as(W, x.*) * @as(W, @splat(inverse(1, .{scale})[0])));
    const wq = @as(W, w.*) * q;
    return codes_file.sum(n, wq * x.*) * inverse(1, .{codes_file.sum(n, wq * q)})[0];
}

/// scale * q + offset.
pub const Line = struct { scale: f32, offset: f32, stiffness: f32, err: f32 };

pub fn LineFits(comptime k: usize) type {
    return struct {
        scale: @Vector(k, f32),
        offset: @Vector(k, f32),
        stiffness: @Vector(k, f32),
        err: @Vector(k, f32),
        best: usize,

        pub fn at(fits: *const @This(), lane: usize) Line {
            return .{
                .scale = @as([k]f32, fits.scale)[lane],
                .offset = @as([k]f32, fits.offset)[lane],
                .stiffness = @as([k]f32, fits.stiffness)[lane],
                .err = @as([k]f32, fits.err)[lane],
            };
        }
    };
}

/// Codes 0 … `top` of (x - low) * candidate + shift, and the line scale * q + offset through them
/// by least squares; `.at_most_zero` keeps the offset from becoming positive.
pub fn fitLine(
    comptime top: comptime_int,
    comptime k: usize,
    comptime bound: enum { none, at_most_zero },
    x: []const f32,
    w: []const f32,
    low: f32,
    candidates: @Vector(k, f32),
    shifts: @Vector(k, f32),
) LineFits(k) {
    const V = @Vector(k, f32);
    var q_sum: Chains(k) = .{};
    var qq: Chains(k) = .{};
    var yq: Chains(k) = .{};
    // w, w y and w y^2 in three lanes.
    var plain: Chains(4) = .{};
    var i: usize = 0;
    while (i < x.len) : (i += num_chains) {
        inline for (0..num_chains) |c| {
            const y = x[i + c] - low;
            const v = @as(V, @splat(y)) * candidates + shifts;
            const q = codes_file.Integers(0, top).nearest(k, v);
            const wq = @as(V, @splat(w[i + c])) * q;
            q_sum.sums[c] += wq;
            qq.sums[c] += wq * q;
            yq.sums[c] += wq * @as(V, @splat(y));
            plain.sums[c] += @as(@Vector(4, f32), @splat(w[i + c])) * @Vector(4, f32){ 1, y, y * y, 0 };
        }
    }
    const totals: [4]f32 = plain.total();
    return solveLine(k, bound == .at_most_zero, low, totals[0..3].*, q_sum.total(), qq.total(), yq.total());
}

pub fn solveLine(
    comptime k: usize,
    comptime is_bounded: bool,
    low: f32,
    plain: [3]f32,
    q_sum: @Vector(k, f32),
    qq: @Vector(k, f32),
    yq: @Vector(k, f32),
) LineFits(k) {
    const V = @Vector(k, f32);
    const w: V = @splat(plain[0]);
    const y: V = @splat(plain[1]);
    const yy: V = @splat(plain[2]);
    const det = w * qq - q_sum * q_sum;
    // Codes that are all alike leave the line's slope open: then it starts at `low`.
    const is_open = det <= @as(V, @splat(1e-6)) * w * qq;
    const by_det = inverse(k, @select(f32, is_open, @as(V, @splat(0)), det));
    var offset = (y * qq - q_sum * yq) * by_det;
    if (is_bounded) offset = codes_file.smaller(k, offset, @splat(-low));
    const scale = (yq - offset * q_sum) * inverse(k, qq);
    const two: V = @splat(2);
    const err = yy + scale * (scale * qq + two * (offset * q_sum - yq)) +
        offset * (offset * w - two * y);
    return .{
        .scale = scale,
        .offset = offset + @as(V, @splat(low)),
        .stiffness = qq,
        .err = err,
        .best = greatest(k, -err),
    };
}

/// The first lane with the greatest value.
pub fn greatest(comptime k: usize, v: @Vector(k, f32)) usize {
    const Mask = std.meta.Int(.unsigned, k);
    const most: @Vector(k, f32) = @splat(codes_file.maximum(k, v));
    const mask: Mask = @bitCast(v == most);
    return @min(@ctz(mask), k - 1);
}

/// `k` steps from `first` to `last`, evenly.
pub fn steps(comptime k: usize, first: f32, last: f32) [k]f32 {
    const count: f32 = @floatFromInt(k - 1);
    var list: [k]f32 = undefined;
    for (&list, 0..) |*step, i| {
        step.* = first + (last - first) * @as(f32, @floatFromInt(i)) / count;
    }
    return list;
}

pub fn firstLanes(comptime count: usize) [16]bool {
    var list: [16]bool = @splat(false);
    for (list[0..count]) |*is_first| is_first.* = true;
    return list;
}
