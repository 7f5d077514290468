//! Q2_K, Q4_K and Q5_K: 256 weights in sub-blocks, x = d * scale * q - dmin * min with unsigned
//! integer scales and mins.
const std = @import("std");
const codes_file = @import("codes.zig");
const fit = @import("fit.zig");
const Integers = codes_file.Integers;
const inverse = codes_file.inverse;
const sum = codes_file.sum;
const toHalf = codes_file.toHalf;
const len = 256;
const X = *const [len]f32;
const limit = std.math.floatMax(f16);

pub const Q2_K = struct {
    pub const Block = @import("../quant/q2_k.zig").Block;
    pub const block_len = len;
    pub const largest = limit;

    pub fn quantize(x: X, w: X, block: *align(1) Block) void {
        const found = Search(3, 16, 15, fit.steps(16, 1.75, 4.0)).run(x, w);
        block.d = found.d;
        block.dmin = found.dmin;
        for (&block.scales, found.scales, found.mins) |*byte, scale, min| byte.* = scale | min << 4;
        @import("super_signed.zig").storePairs(&block.quants, &found.numbers);
    }
};

pub const Q4_K = struct {
    pub const Block = @import("../quant/q4_k.zig").Block;
    pub const block_len = len;
    pub const largest = limit;

    pub fn quantize(x: X, w: X, block: *align(1) Block) void {
        const found = Search(15, 32, 63, fit.steps(16, 13.0, 16.0)).run(x, w);
        storeHeader(block, &found);
        storeNibbles(&block.quants, &found.numbers);
    }
};

pub const Q5_K = struct {
    pub const Block = @import("../quant/q5_k.zig").Block;
    pub const block_len = len;
    pub const largest = limit;

    pub fn quantize(x: X, w: X, block: *align(1) Block) void {
        const found = Search(31, 32, 63, fit.steps(16, 29.0, 32.0)).run(x, w);
        storeHeader(block, &found);
        storeNibbles(&block.quants, &found.numbers);
        block.high = @splat(0);
        for (0..8) |j| for (&block.high, found.numbers[j * 32 ..][0..32]) |*byte, number| {
            byte.* |= number >> 4 << @intCast(j);
        };
    }
};

/// 8 scales and 8 mins of 6 bits in 12 bytes; `scaleAndMin` of kernels/quant reads them.
fn storeHeader(block: anytype, found: anytype) void {
    block.d = found.d;
    block.dmin = found.dmin;
    for (0..4) |j| {
        block.scales[j] = found.scales[j] | found.scales[j + 4] >> 4 << 6;
        block.scales[j + 4] = found.mins[j] | found.mins[j + 4] >> 4 << 6;
        block.scales[j + 8] = (found.scales[j + 4] & 15) | found.mins[j + 4] << 4;
    }
}

/// Per 64 weights 32 bytes: the first 32 low, the others high.
fn storeNibbles(quants: *[128]u8, numbers: *const [len]u8) void {
    for (0..4) |pair| {
        const low = numbers[pair * 64 ..][0..32];
        const high = numbers[pair * 64 + 32 ..][0..32];
        for (quants[pair * 32 ..][0..32], low, high) |*byte, l, h| byte.* = (l & 15) | h << 4;
    }
}

inline fn splat(v: f32) @Vector(16, f32) {
    return @splat(v);
}

/// Codes 0 … `top`, scales and mins 0 … `top_scale`; `tries`: the code that a sub-block's range
/// is stretched to.
fn Search(
    comptime top: comptime_int,
    comptime sub_len: usize,
    comptime top_scale: comptime_int,
    comptime tries: @Vector(16, f32),
) type {
    const num_subs = len / sub_len;
    const Codes = Integers(0, top);
    const ScaleCodes = Integers(0, top_scale);
    return struct {
        const Ideal = struct { scales: [num_subs]f32, mins: [num_subs]f32 };
        const Found = struct {
            d: f16,
            dmin: f16,
            scales: [num_subs]u8 = undefined,
            mins: [num_subs]u8 = undefined,
            numbers: [len]u8 = undefined,
            err: f32 = 0,

            fn scale(found: *const Found, j: usize) f32 {
                return @as(f32, found.d) * @as(f32, @floatFromInt(found.scales[j]));
            }
            fn min(found: *const Found, j: usize) f32 {
                return @as(f32, found.dmin) * @as(f32, @floatFromInt(found.mins[j]));
            }
        };

        fn run(x: X, w: X) Found {
            var ideal: Ideal = undefined;
            var scale_stiffness: [num_subs]f32 = undefined;
            var min_stiffness: [num_subs]f32 = undefined;
            for (0..num_subs) |j| {
                const ws = w[j * sub_len ..][0..sub_len];
                const line = fitSub(x[j * sub_len ..][0..sub_len], ws);
                ideal.scales[j] = line.scale;
                ideal.mins[j] = -line.offset;
                scale_stiffness[j] = line.stiffness;
                min_stiffness[j] = sum(sub_len, ws.*);
            }
            var best = settle(x, w, &ideal, .{
                .d = common(&ideal.scales, &scale_stiffness),
                .dmin = common(&ideal.mins, &min_stiffness),
            });
            // The codes are settled now: d and dmin that suit all of them, once more.
            if (refit(x, w, &best)) |start| {
                const again = settle(x, w, &ideal, start);
                if (again.err < best.err) best = again;
            }
            for (0..num_subs) |j| {
                const numbers = best.numbers[j * sub_len ..][0..sub_len];
                const xs = x[j * sub_len ..][0..sub_len];
                codes_file.encode(Codes, sub_len, xs, best.scale(j), -best.min(j), numbers);
            }
            return best;
        }

        /// The best line, found from ranges that begin at the lowest element, or that have zero on
        /// a code: many elements may lie near it.
        fn fitSub(x: *const [sub_len]f32, w: *const [sub_len]f32) fit.Line {
            const range = codes_file.Range.of(x);
            const low = @min(0, range.low); // An offset above zero cannot be stored.
            const by_range = splat(inverse(1, .{range.high - low})[0]);
            const zeros: @Vector(16, f32) = @splat(0);
            const first = fit.fitLine(top, 16, .at_most_zero, x, w, low, tries * by_range, zeros);
            const zero_at = splat(-low) * tries * by_range;
            const shifts = codes_file.round(16, zero_at) - zero_at;
            const second = fit.fitLine(top, 16, .at_most_zero, x, w, low, tries * by_range, shifts);
            const lines = [2]fit.Line{ first.at(first.best), second.at(second.best) };
            return lines[@intFromBool(lines[1].err < lines[0].err)];
        }

        /// The scale of the integer scales (or mins).
        fn common(ideal: *const [num_subs]f32, stiffness: *const [num_subs]f32) f16 {
            const by_extreme = splat(inverse(1, .{codes_file.extreme(ideal)})[0]);
            const places: @Vector(16, f32) = comptime fit.steps(16, top_scale + 0.4, top_scale - top_scale / 5);
            return fit.fitHalf(ScaleCodes, 16, ideal, stiffness, places * by_extreme).scale;
        }

        /// For settled d and dmin the best scale and min of each sub-block: four neighbours of the
        /// ideal one each, in all pairs.
        fn settle(x: X, w: X, ideal: *const Ideal, start: Found) Found {
            var found = start;
            found.err = 0;
            for (0..num_subs) |j| {
                const scales = neighbours(ideal.scales[j], start.d, scale_steps);
                const mins = neighbours(ideal.mins[j], start.dmin, min_steps);
                const chosen = fit.chooseScale(
                    Codes,
                    16,
                    x[j * sub_len ..][0..sub_len],
                    w[j * sub_len ..][0..sub_len],
                    scales * splat(start.d),
                    mins * splat(-@as(f32, start.dmin)),
                );
                found.scales[j] = @intFromFloat(@as([16]f32, scales)[chosen.lane]);
                found.mins[j] = @intFromFloat(@as([16]f32, mins)[chosen.lane]);
                found.err += chosen.err;
            }
            return found;
        }

        const scale_steps: [16]f32 = .{ 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3 };
        const min_steps: [16]f32 = .{ 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3 };

        /// `steps` 0 … 3: two integers below and two above ideal / d.
        fn neighbours(ideal: f32, d: f16, steps: @Vector(16, f32)) @Vector(16, f32) {
            const at = ideal * inverse(1, .{@as(f32, d)})[0];
            const first = ScaleCodes.nearest(1, .{at - 0.5})[0] - 1;
            return ScaleCodes.nearest(16, steps + splat(first));
        }

        /// Least squares for d and dmin with everything else settled.
        fn refit(x: X, w: X, found: *const Found) ?Found {
            var aa: f32 = 0;
            var bb: f32 = 0;
            var ab: f32 = 0;
            var xa: f32 = 0;
            var xb: f32 = 0;
            for (0..num_subs) |j| {
                const V = @Vector(sub_len, f32);
                const xs: V = x[j * sub_len ..][0..sub_len].*;
                const ws: V = w[j * sub_len ..][0..sub_len].*;
                const id = inverse(1, .{found.scale(j)})[0];
                const q = Codes.nearest(sub_len, (xs + @as(V, @splat(found.min(j)))) * @as(V, @splat(id)));
                const scale: f32 = @floatFromInt(found.scales[j]);
                const min: f32 = @floatFromInt(found.mins[j]);
                const wq = ws * q;
                aa += scale * scale * sum(sub_len, wq * q);
                bb += min * min * sum(sub_len, ws);
                ab += scale * min * sum(sub_len, wq);
                xa += scale * sum(sub_len, wq * xs);
                xb += min * sum(sub_len, ws * xs);
            }
            const det = aa * bb - ab * ab;
            if (bb == 0 and aa > 0) return .{ .d = toHalf(xa / aa), .dmin = found.dmin };
            if (!(det > 1e-6 * aa * bb)) return null;
            const d = (xa * bb - ab * xb) / det;
            const dmin = (ab * xa - aa * xb) / det;
            if (d <= 0 or dmin < 0) return null;
            return .{ .d = toHalf(d), .dmin = toHalf(dmin) };
        }
    };
}
