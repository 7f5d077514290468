//! The search of the code-book types: x = D * ±point for runs of weights, D = d * unit * (2 scale + 1)
//! for each sub-block. For a point with A = sum(w p^2) and B = 2 sum(w x p) the error is, up to a
//! constant, D (D A - B): a straight line in D times D. Each run's points are reduced once to the
//! few whose line is the lowest somewhere; every scale is then tried on those.
const std = @import("std");
const codes_file = @import("codes.zig");
const fit = @import("fit.zig");
const codebooks = @import("../quant/codebooks.zig");
const Book = codebooks.Book;
const inverse = codes_file.inverse;
const len = 256;
const V = @Vector(16, f32);

/// Most lines that are kept of a run; about a dozen is usual.
const most_lines = 96;

pub const Shift = enum {
    none,
    /// One -1 or +1 added to all points of a sub-block.
    by_sub_block,
    /// One for each point.
    by_point,
};

pub const Layout = struct {
    book: Book,
    sub_len: usize,
    num_scales: usize,
    /// D is d * unit * (2 scale + 1).
    unit: f32,
    shift: Shift = .none,
};

/// The odd numbers 1, 3, …, 2 n - 1.
fn OddNumbers(comptime n: comptime_int) type {
    return struct {
        pub inline fn nearest(comptime k: usize, v: @Vector(k, f32)) @Vector(k, f32) {
            const W = @Vector(k, f32);
            const half = (v - @as(W, @splat(1))) * @as(W, @splat(0.5));
            const number = codes_file.Integers(0, n - 1).nearest(k, half);
            return number * @as(W, @splat(2)) + @as(W, @splat(1));
        }
    };
}

const Lines = struct {
    count: usize = 0,
    a: [most_lines]f32 = undefined,
    b: [most_lines]f32 = undefined,
    code: [most_lines]u16 = undefined,

    fn add(lines: *Lines, a: f32, b: f32, code: usize) void {
        if (lines.count == most_lines) return;
        lines.a[lines.count] = a;
        lines.b[lines.count] = b;
        lines.code[lines.count] = @intCast(code);
        lines.count += 1;
    }

    /// The lowest line for each D.
    fn lowest(lines: *const Lines, d: V) V {
        var best: V = @splat(std.math.floatMax(f32));
        for (lines.a[0..lines.count], lines.b[0..lines.count]) |a, b| {
            best = codes_file.smaller(16, d * @as(V, @splat(a)) - @as(V, @splat(b)), best);
        }
        return best;
    }

    fn lowestAt(lines: *const Lines, d: f32) usize {
        var best: usize = 0;
        for (1..lines.count) |i| {
            if (d * lines.a[i] - lines.b[i] < d * lines.a[best] - lines.b[best]) best = i;
        }
        return best;
    }
};

pub fn Search(comptime layout: Layout) type {
    const book = layout.book;
    const dim = book.dim;
    const num_subs = len / layout.sub_len;
    const runs_per_sub = layout.sub_len / dim;
    const num_runs = len / dim;
    const Scales = OddNumbers(layout.num_scales);
    const num_tries = if (layout.shift == .by_sub_block) 2 else 1;
    return struct {
        pub const Found = struct {
            d: f16,
            scales: [num_subs]u8 = undefined,
            /// Points of each run; from `book.count` on they are shifted down instead of up.
            codes: [num_runs]u16 = undefined,
            gain: f32 = 0,
        };
        const Sub = [num_tries][runs_per_sub]Lines;

        /// x with signs that the points take care of; w as everywhere.
        pub fn run(x: *const [len]f32, w: *const [len]f32) Found {
            var subs: [num_subs]Sub = undefined;
            var ideal: [num_subs]f32 = undefined;
            var stiffness: [num_subs]f32 = undefined;
            for (&subs, 0..) |*sub, j| {
                const start = j * layout.sub_len;
                const own = fitSub(x[start..][0..layout.sub_len], w[start..][0..layout.sub_len], sub);
                ideal[j] = own.scale;
                stiffness[j] = own.stiffness;
            }
            const most: f32 = 2 * layout.num_scales - 1;
            const places: V = comptime fit.steps(16, 1.02 * most, 0.8 * most);
            const by_extreme = inverse(1, .{codes_file.extreme(&ideal)})[0];
            const candidates = places * @as(V, @splat(by_extreme));
            const first = fit.fitScale(Scales, 16, &ideal, &stiffness, candidates);
            const start = @as([16]f32, first.scale)[first.best] / layout.unit;
            var best = settle(&subs, codes_file.toHalf(start));
            for (0..2) |_| {
                const again = settle(&subs, refit(&subs, &best));
                if (again.gain > best.gain) best = again;
            }
            return best;
        }

        const SubFit = struct { scale: f32, stiffness: f32 };

        /// Fills the lines and returns the best D without regard to the other sub-blocks.
        fn fitSub(
            x: *const [layout.sub_len]f32,
            w: *const [layout.sub_len]f32,
            sub: *Sub,
        ) SubFit {
            const most = @abs(codes_file.extreme(x));
            const largest: f32 = @floatFromInt(book.levels[book.levels.len - 1]);
            const unit_d = if (most == 0) 1 else most / largest;
            const tries = ratios * @as(V, @splat(unit_d));
            const ends = [2]f32{ ratios[15] * unit_d, ratios[0] * unit_d };
            var best: SubFit = .{ .scale = 0, .stiffness = 0 };
            var best_gain: f32 = 0;
            for (sub, 0..) |*lines, shifted| {
                for (lines, 0..) |*own, r| {
                    own.* = .{};
                    const xs = x[r * dim ..][0..dim];
                    const ws = w[r * dim ..][0..dim];
                    switch (layout.shift) {
                        .none => addLines(xs, ws, ends, 0, own),
                        .by_sub_block => addLines(xs, ws, ends, if (shifted == 0) 1 else -1, own),
                        .by_point => {
                            addLines(xs, ws, ends, 1, own);
                            addLines(xs, ws, ends, -1, own);
                        },
                    }
                }
                const at = bestOf(lines, tries);
                const sums = sumsAt(lines, @as([16]f32, tries)[at.lane]);
                if (at.gain > best_gain) {
                    best_gain = at.gain;
                    best = .{ .scale = @max(0, 0.5 * sums.b / sums.a), .stiffness = sums.a };
                }
            }
            return best;
        }

        /// D times the book's last level over the largest element: far outliers are cut off.
        const ratios: V = blk: {
            var list: [16]f32 = undefined;
            var next: f32 = 1.1;
            for (&list) |*ratio| {
                ratio.* = next;
                next *= 0.925;
            }
            break :blk list;
        };

        fn bestOf(lines: *const [runs_per_sub]Lines, d: V) struct { lane: usize, gain: f32 } {
            var sum: V = @splat(0);
            for (lines) |*own| sum += own.lowest(d);
            const gain = -(sum * d);
            const lane = fit.greatest(16, gain);
            return .{ .lane = lane, .gain = @as([16]f32, gain)[lane] };
        }

        const Sums = struct { a: f32 = 0, b: f32 = 0 };

        fn sumsAt(lines: *const [runs_per_sub]Lines, d: f32) Sums {
            var sums: Sums = .{};
            for (lines) |*own| {
                const i = own.lowestAt(d);
                sums.a += own.a[i];
                sums.b += own.b[i];
            }
            return sums;
        }

        /// For a settled d the best scale of each sub-block, of all there are, and its points.
        fn settle(subs: *const [num_subs]Sub, d: f16) Found {
            var found: Found = .{ .d = d };
            const odd: V = comptime fit.steps(16, 1, 31);
            const all_scales = odd * @as(V, @splat(@as(f32, d) * layout.unit));
            const allowed = comptime fit.firstLanes(layout.num_scales);
            const scales = @select(f32, allowed, all_scales, @as(V, @splat(@as(f32, d) * layout.unit)));
            for (subs, 0..) |*sub, j| {
                var shifted: usize = 0;
                var at = bestOf(&sub[0], scales);
                if (num_tries == 2) {
                    const other = bestOf(&sub[1], scales);
                    if (other.gain > at.gain) {
                        at = other;
                        shifted = 1;
                    }
                }
                found.scales[j] = @intCast(at.lane);
                found.gain += at.gain;
                for (&sub[shifted], 0..) |*own, r| {
                    const line = own.lowestAt(@as([16]f32, scales)[at.lane]);
                    found.codes[j * runs_per_sub + r] = own.code[line];
                }
            }
            return found;
        }

        /// The d that suits the settled scales and points best.
        fn refit(subs: *const [num_subs]Sub, found: *const Found) f16 {
            var aa: f32 = 0;
            var bb: f32 = 0;
            for (subs, 0..) |*sub, j| {
                const units = layout.unit * @as(f32, @floatFromInt(2 * @as(u32, found.scales[j]) + 1));
                const is_down = found.codes[j * runs_per_sub] >= book.count;
                const shifted: usize = if (num_tries == 2 and is_down) 1 else 0;
                const sums = sumsAt(&sub[shifted], @as(f32, found.d) * units);
                aa += units * units * sums.a;
                bb += units * sums.b * 0.5;
            }
            return codes_file.toHalf(bb * inverse(1, .{aa})[0]);
        }

        /// Adds the lines that are the lowest for some D between the ends.
        fn addLines(
            x: *const [dim]f32,
            w: *const [dim]f32,
            ends: [2]f32,
            shift: f32,
            lines: *Lines,
        ) void {
            var a: [book.count]f32 = undefined;
            var b: [book.count]f32 = undefined;
            var low: [2]Lowest = .{ .{}, .{} };
            for (0..book.count / 16) |c| {
                var av: V = @splat(0);
                var bv: V = @splat(0);
                inline for (0..dim) |i| {
                    var p: V = levels[i][c * 16 ..][0..16].*;
                    if (layout.shift != .none) p += @as(V, @splat(shift));
                    const wp = @as(V, @splat(w[i])) * p;
                    av += wp * p;
                    bv += wp * @as(V, @splat(2 * x[i]));
                }
                a[c * 16 ..][0..16].* = av;
                b[c * 16 ..][0..16].* = bv;
                inline for (&low, ends) |*own, d| own.see(av * @as(V, @splat(d)) - bv, c);
            }
            const offset: usize = if (shift < 0) book.count else 0;
            const first = low[0].index();
            const last = low[1].index();
            lines.add(a[first], b[first], first + offset);
            if (!(a[first] > a[last])) return;
            lines.add(a[last], b[last], last + offset);
            // Lines that pass below both of these do so where the two meet.
            const d = (b[first] - b[last]) / (a[first] - a[last]);
            const height: V = @splat(@max(d * a[first] - b[first], d * a[last] - b[last]));
            for (0..book.count / 16) |c| {
                const av: V = a[c * 16 ..][0..16].*;
                const bv: V = b[c * 16 ..][0..16].*;
                var mask: u16 = @bitCast(av * @as(V, @splat(d)) - bv < height);
                while (mask != 0) : (mask &= mask - 1) {
                    const i = c * 16 + @ctz(mask);
                    if (i != first and i != last) lines.add(a[i], b[i], i + offset);
                }
            }
        }

        /// [dim][count]: each coordinate of all points.
        const levels: [dim][book.count]f32 = blk: {
            @setEvalBranchQuota(1_000_000);
            var planes: [dim][book.count]f32 = undefined;
            for (codebooks.weights(book, 0), 0..) |point, code| {
                for (point, 0..) |byte, i| {
                    planes[i][code] = @floatFromInt(@as(i8, @bitCast(byte)));
                }
            }
            break :blk planes;
        };
    };
}

/// The smallest value in each lane, and where it was.
const Lowest = struct {
    value: V = @splat(std.math.floatMax(f32)),
    chunk: @Vector(16, u32) = @splat(0),

    inline fn see(lowest: *Lowest, v: V, chunk: usize) void {
        const is_lower = v < lowest.value;
        lowest.value = @select(f32, is_lower, v, lowest.value);
        const here: @Vector(16, u32) = @splat(@intCast(chunk));
        lowest.chunk = @select(u32, is_lower, here, lowest.chunk);
    }

    fn index(lowest: *const Lowest) usize {
        const lane = fit.greatest(16, -lowest.value);
        return @as(usize, @as([16]u32, lowest.chunk)[lane]) * 16 + lane;
    }
};

/// Magnitudes of 8 weights and their signs as bits. With `is_even` the number of negative ones
/// is even: else the weight that loses least is turned to the other side of zero.
pub fn splitSigns(
    comptime is_even: bool,
    x: *const [8]f32,
    w: *const [8]f32,
    magnitudes: *[8]f32,
) u8 {
    var signs: u8 = 0;
    for (x, magnitudes, 0..) |v, *magnitude, i| {
        magnitude.* = @abs(v);
        if (v < 0) signs |= @as(u8, 1) << @intCast(i);
    }
    if (is_even and @popCount(signs) % 2 == 1) {
        var least: usize = 0;
        for (1..8) |i| {
            if (w[i] * x[i] * x[i] < w[least] * x[least] * x[least]) least = i;
        }
        magnitudes[least] = -magnitudes[least];
        signs ^= @as(u8, 1) << @intCast(least);
    }
    return signs;
}
