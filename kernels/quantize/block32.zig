//! Q4_0, Q5_0, Q8_0 (x = d * q), Q4_1, Q5_1 (x = d * q + m) and IQ4_NL (x = d * level): 32 weights
//! with scales of their own.
const std = @import("std");
const codes_file = @import("codes.zig");
const fit = @import("fit.zig");
const Integers = codes_file.Integers;
const inverse = codes_file.inverse;
const len = 32;
const X = *const [len]f32;

/// The greatest scale is an F16.
const limit = std.math.floatMax(f16);

/// The levels of IQ4_NL and IQ4_XS.
pub const Iq4Levels = codes_file.Levels(&@import("../quant/codebooks.zig").iq4_levels);

pub const Q4_0 = Signed(@import("../quant/q4_0.zig").Block, Integers(-8, 7), &.{
    fit.steps(16, -9.0, -6.0), fit.steps(16, 9.0, 6.0),
});
pub const Q5_0 = Signed(@import("../quant/q5_0.zig").Block, Integers(-16, 15), &.{
    fit.steps(16, -17.0, -14.0), fit.steps(16, 17.0, 14.0),
});
pub const Q8_0 = Signed(@import("../quant/q8_0.zig").Block, Integers(-127, 127), &.{
    fit.steps(16, 127.0, 119.5),
});
pub const Iq4Nl = Signed(@import("../quant/iq4_nl.zig").Block, Iq4Levels, &.{
    fit.steps(16, -135.0, -105.0), fit.steps(16, 120.0, 90.0),
});
pub const Q4_1 = Affine(@import("../quant/q4_1.zig").Block, 15, fit.steps(16, 13.5, 17.25));
pub const Q5_1 = Affine(@import("../quant/q5_1.zig").Block, 31, fit.steps(16, 29.5, 33.25));

/// `tries`: where the extreme element is put on the scale of codes.
fn Signed(comptime B: type, comptime Codes: type, comptime tries: []const [16]f32) type {
    return struct {
        pub const Block = B;
        pub const block_len = len;
        pub const largest = limit;

        pub fn quantize(x: X, w: X, block: *Block) void {
            const by_extreme = inverse(1, .{codes_file.extreme(x)})[0];
            const candidates = @as(Tries, places) * @as(Tries, @splat(by_extreme));
            const fits = fit.fitScale(Codes, places.len, x, w, candidates);
            const first = @as([places.len]f32, fits.scale)[fits.best];
            var best = withError(x, w, first);
            // Once more: its own codes may want another scale.
            const again = withError(x, w, fit.refitScale(Codes, len, x, w, best.scale));
            if (again.err < best.err) best = again;
            // Where the codes are as good as exact, the rounding of the scale decides.
            if (best.err <= 1e-6 * weightedSquares(x, w)) {
                const exact = fit.fitHalf(Codes, places.len, x, w, candidates);
                if (exact.err < best.err) best = .{ .scale = exact.scale, .err = exact.err };
            }
            block.d = best.scale;
            var numbers: [len]u8 = undefined;
            codes_file.encode(Codes, len, x, best.scale, 0, &numbers);
            store(block, &numbers);
        }

        const places: [16 * tries.len]f32 = @bitCast(tries[0..tries.len].*);
        const Tries = @Vector(places.len, f32);
        const Stored = struct { scale: f16, err: f32 };

        fn withError(x: X, w: X, scale: f32) Stored {
            const half = codes_file.toHalf(scale);
            return .{ .scale = half, .err = fit.errorOf(Codes, len, x, w, half, 0) };
        }
    };
}

fn weightedSquares(x: X, w: X) f32 {
    const W = @Vector(len, f32);
    const v: W = x.*;
    return codes_file.sum(len, v * v * w.*);
}

const V = @Vector(16, f32);
inline fn splat(v: f32) V {
    return @splat(v);
}

fn Affine(comptime B: type, comptime top: comptime_int, comptime tries: @Vector(16, f32)) type {
    const Codes = Integers(0, top);
    return struct {
        pub const Block = B;
        pub const block_len = len;
        pub const largest = limit;

        pub fn quantize(x: X, w: X, block: *Block) void {
            const range = codes_file.Range.of(x);
            const by_range = inverse(1, .{range.high - range.low})[0];
            const fits = fit.fitLine(top, 16, .none, x, w, range.low, tries * splat(by_range), @splat(0));
            const start = fits.at(fits.best);
            const again = refitLine(x, w, start);
            const lines = [2]fit.Line{ stored(x, w, start), stored(x, w, again) };
            const best = lines[@intFromBool(lines[1].err < lines[0].err)];
            block.d = @floatCast(best.scale);
            block.m = @floatCast(best.offset);
            var numbers: [len]u8 = undefined;
            codes_file.encode(Codes, len, x, block.d, block.m, &numbers);
            store(block, &numbers);
        }

        /// As F16 holds it.
        fn stored(x: X, w: X, line: fit.Line) fit.Line {
            const scale: f32 = codes_file.toHalf(line.scale);
            const offset: f32 = codes_file.toHalf(line.offset);
            const err = fit.errorOf(Codes, len, x, w, scale, offset);
            return .{ .scale = scale, .offset = offset, .stiffness = line.stiffness, .err = err };
        }

        /// The line through the codes of `line`.
        fn refitLine(x: X, w: X, line: fit.Line) fit.Line {
            const W = @Vector(len, f32);
            const y = @as(W, x.*) - @as(W, @splat(line.offset));
            const id = inverse(1, .{line.scale})[0];
            const q = Codes.nearest(len, y * @as(W, @splat(id)));
            const wq = @as(W, w.*) * q;
            const wy = @as(W, w.*) * y;
            const sum = codes_file.sum;
            const plain = [3]f32{ sum(len, w.*), sum(len, wy), sum(len, wy * y) };
            const q_sum = sum(len, wq);
            const fits = fit.solveLine(1, false, line.offset, plain, .{q_sum}, .{sum(len, wq * q)}, .{sum(len, wq * y)});
            return fits.at(0);
        }
    };
}

/// Signed bytes, or nibbles (the first half of the block low) with fifth bits where they exist.
fn store(block: anytype, numbers: *const [len]u8) void {
    const Block = @TypeOf(block.*);
    if (@FieldType(Block, "quants") == [len]i8) {
        for (&block.quants, numbers) |*q, number| q.* = @intCast(@as(i32, number) - 127);
        return;
    }
    for (&block.quants, numbers[0..16], numbers[16..]) |*byte, low, high| {
        byte.* = (low & 15) | high << 4;
    }
    if (@hasField(Block, "high")) {
        var bits: u32 = 0;
        for (numbers, 0..) |number, i| bits |= @as(u32, number >> 4) << @intCast(i);
        block.high = bits;
    }
}
