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
            var best = fit.fitHalf(Codes, 16, x, w, @as(V, tries[0]) * splat(by_extreme));
            inline for (tries[1..]) |places| {
                const other = fit.fitHalf(Codes, 16, x, w, @as(V, places) * splat(by_extreme));
                if (other.err < best.err) best = other;
            }
            // Once more: its own codes may want another scale.
            const again = fit.fitHalf(Codes, 1, x, w, inverse(1, .{@as(f32, best.scale)}));
            if (again.err < best.err) best = again;
            block.d = best.scale;
            var numbers: [len]u8 = undefined;
            codes_file.encode(Codes, len, x, best.scale, 0, &numbers);
            store(block, &numbers);
        }
    };
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
            const lines = fit.fitLine(top, 16, .none, x, w, range.low, tries * splat(by_range), @splat(0));
            const start = lines.at(lines.best);
            const id = inverse(1, .{start.scale});
            const again = fit.fitLine(top, 1, .none, x, w, start.offset, id, @splat(0)).at(0);
            const scales = codes_file.toHalves(2, .{ start.scale, again.scale });
            const offsets = codes_file.toHalves(2, .{ start.offset, again.offset });
            const best = fit.chooseScale(Codes, 2, x, w, @as(Pair, scales), @as(Pair, offsets)).lane;
            block.d = @as([2]f16, scales)[best];
            block.m = @as([2]f16, offsets)[best];
            var numbers: [len]u8 = undefined;
            codes_file.encode(Codes, len, x, block.d, block.m, &numbers);
            store(block, &numbers);
        }
        const Pair = @Vector(2, f32);
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
