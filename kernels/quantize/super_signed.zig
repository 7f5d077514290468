//! Q3_K, Q6_K and IQ4_XS: 256 weights in sub-blocks, x = d * scale * q with signed integer scales.
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

pub const Q3_K = struct {
    pub const Block = @import("../quant/q3_k.zig").Block;
    pub const block_len = len;
    pub const largest = limit;

    pub fn quantize(x: X, w: X, block: *align(1) Block) void {
        const found = Search(Integers(-4, 3), 16, 32, &.{
            fit.steps(16, -5.0, -2.75), fit.steps(16, 5.0, 2.75),
        }).run(x, w);
        block.* = std.mem.zeroes(Block);
        block.d = found.d;
        for (found.scales, 0..) |scale, u| {
            const bits: u8 = @intCast(@as(i32, scale) + 32);
            block.scales[u % 8] |= (bits & 15) << @intCast(u / 8 * 4);
            block.scales[8 + u % 4] |= bits >> 4 << @intCast(u / 4 * 2);
        }
        storePairs(&block.quants, &found.numbers);
        for (0..8) |j| for (&block.high, found.numbers[j * 32 ..][0..32]) |*byte, number| {
            byte.* |= number >> 2 << @intCast(j);
        };
    }
};

pub const Q6_K = struct {
    pub const Block = @import("../quant/q6_k.zig").Block;
    pub const block_len = len;
    pub const largest = limit;

    pub fn quantize(x: X, w: X, block: *align(1) Block) void {
        const found = Search(Integers(-32, 31), 16, 128, &.{fit.steps(16, -33.0, -30.0)}).run(x, w);
        block.d = found.d;
        block.scales = found.scales;
        for (0..2) |half| {
            const numbers = found.numbers[half * 128 ..][0..128];
            for (0..64) |i| {
                const low = numbers[i] & 15;
                block.low[half * 64 + i] = low | numbers[64 + i] << 4;
            }
            for (0..32) |i| {
                var byte: u8 = 0;
                inline for (0..4) |j| byte |= numbers[j * 32 + i] >> 4 << 2 * j;
                block.high[half * 32 + i] = byte;
            }
        }
    }
};

pub const Iq4Xs = struct {
    pub const Block = @import("../quant/iq4_xs.zig").Block;
    pub const block_len = len;
    pub const largest = limit;

    pub fn quantize(x: X, w: X, block: *align(1) Block) void {
        const Levels = @import("block32.zig").Iq4Levels;
        const found = Search(Levels, 32, 32, &.{
            fit.steps(16, -135.0, -105.0), fit.steps(16, 120.0, 90.0),
        }).run(x, w);
        block.d = found.d;
        block.scales_high = 0;
        block.scales_low = @splat(0);
        for (found.scales, 0..) |scale, j| {
            const bits: u16 = @intCast(@as(i32, scale) + 32);
            block.scales_low[j / 2] |= @intCast((bits & 15) << @intCast(j % 2 * 4));
            block.scales_high |= bits >> 4 << @intCast(2 * j);
            const numbers = found.numbers[j * 32 ..][0..32];
            for (block.quants[j * 16 ..][0..16], numbers[0..16], numbers[16..]) |*byte, low, high| {
                byte.* = low | high << 4;
            }
        }
    }
};

/// The low 2 bits of Q2_K and Q3_K: per 128 weights 32 bytes of four parts.
pub fn storePairs(quants: *[64]u8, numbers: *const [len]u8) void {
    for (0..2) |half| for (0..32) |i| {
        var byte: u8 = 0;
        inline for (0..4) |j| byte |= (numbers[half * 128 + j * 32 + i] & 3) << 2 * j;
        quants[half * 32 + i] = byte;
    };
}

/// `tries`: where a sub-block's extreme element is put on the scale of codes; integer scales are
/// -`half_range` … `half_range` - 1.
fn Search(
    comptime Codes: type,
    comptime sub_len: usize,
    comptime half_range: comptime_int,
    comptime tries: []const [16]f32,
) type {
    const num_subs = len / sub_len;
    const ScaleCodes = Integers(-half_range, half_range - 1);
    return struct {
        const Found = struct {
            d: f16,
            scales: [num_subs]i8,
            numbers: [len]u8,
            err: f32,
        };

        fn run(x: X, w: X) Found {
            var ideal: [num_subs]f32 = undefined;
            var stiffness: [num_subs]f32 = undefined;
            for (0..num_subs) |j| {
                const own = fitSub(x[j * sub_len ..][0..sub_len], w[j * sub_len ..][0..sub_len]);
                ideal[j] = own.scale;
                stiffness[j] = own.stiffness;
            }
            const by_extreme = inverse(1, .{codes_file.extreme(&ideal)})[0];
            const places: @Vector(16, f32) = comptime fit.steps(16, -half_range - 1, -half_range + 5);
            const candidates = places * @as(@Vector(16, f32), @splat(by_extreme));
            const first = fit.fitHalf(ScaleCodes, 16, &ideal, &stiffness, candidates);
            var best = settle(x, w, &ideal, first.scale);
            // The codes are settled now: the scale that suits all of them, once more.
            const refit = settle(x, w, &ideal, toHalf(refitScale(x, w, &best)));
            if (refit.err < best.err) best = refit;
            for (0..num_subs) |j| {
                const scale = @as(f32, best.d) * @as(f32, @floatFromInt(best.scales[j]));
                const numbers = best.numbers[j * sub_len ..][0..sub_len];
                codes_file.encode(Codes, sub_len, x[j * sub_len ..][0..sub_len], scale, 0, numbers);
            }
            return best;
        }

        fn fitSub(x: *const [sub_len]f32, w: *const [sub_len]f32) SubFit {
            const by_extreme = inverse(1, .{codes_file.extreme(x)})[0];
            const k = 16 * tries.len;
            var places: [k]f32 = undefined;
            inline for (tries, 0..) |run_of, i| places[i * 16 ..][0..16].* = run_of;
            const candidates = @as(@Vector(k, f32), places) * @as(@Vector(k, f32), @splat(by_extreme));
            const fits = fit.fitScale(Codes, k, x, w, candidates);
            return .{
                .scale = @as([k]f32, fits.scale)[fits.best],
                .stiffness = @as([k]f32, fits.stiffness)[fits.best],
            };
        }
        const SubFit = struct { scale: f32, stiffness: f32 };

        /// For a settled d the best integer scale of each sub-block, near its ideal one.
        fn settle(x: X, w: X, ideal: *const [num_subs]f32, d: f16) Found {
            var found: Found = .{ .d = d, .scales = undefined, .numbers = undefined, .err = 0 };
            const wide: f32 = d;
            const around = comptime fit.steps(8, -4, 3);
            for (0..num_subs) |j| {
                const nearest = ScaleCodes.nearest(1, .{ideal[j] * inverse(1, .{wide})[0]});
                const scales = ScaleCodes.nearest(8, around + @as(@Vector(8, f32), @splat(nearest[0])));
                const chosen = fit.chooseScale(
                    Codes,
                    8,
                    x[j * sub_len ..][0..sub_len],
                    w[j * sub_len ..][0..sub_len],
                    scales * @as(@Vector(8, f32), @splat(wide)),
                    null,
                );
                found.scales[j] = @intFromFloat(@as([8]f32, scales)[chosen.lane]);
                found.err += chosen.err;
            }
            return found;
        }

        fn refitScale(x: X, w: X, found: *const Found) f32 {
            var xq: f32 = 0;
            var qq: f32 = 0;
            for (0..num_subs) |j| {
                const scale: f32 = @floatFromInt(found.scales[j]);
                const id = inverse(1, .{@as(f32, found.d) * scale})[0];
                const V = @Vector(sub_len, f32);
                const xs: V = x[j * sub_len ..][0..sub_len].*;
                const ws: V = w[j * sub_len ..][0..sub_len].*;
                const q = Codes.nearest(sub_len, xs * @as(V, @splat(id)));
                xq += scale * sum(sub_len, ws * xs * q);
                qq += scale * scale * sum(sub_len, ws * q * q);
            }
            return xq * inverse(1, .{qq})[0];
        }
    };
}
