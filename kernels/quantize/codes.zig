//! The codes a weight can take, as a search sees them: the level nearest to x / scale, and the
//! level's number. Only plain f32 operations in a fixed order: the bytes are the same everywhere.
const std = @import("std");

/// 1.5 * 2^23: adding and subtracting it rounds to the nearest integer, halves to even.
const rounder: f32 = 12582912.0;

pub inline fn round(comptime n: usize, v: @Vector(n, f32)) @Vector(n, f32) {
    const r: @Vector(n, f32) = @splat(rounder);
    return (v + r) - r;
}

/// One instruction where `@min` takes three: no operand is a NaN.
pub inline fn smaller(comptime n: usize, a: @Vector(n, f32), b: @Vector(n, f32)) @Vector(n, f32) {
    return @select(f32, a < b, a, b);
}
pub inline fn larger(comptime n: usize, a: @Vector(n, f32), b: @Vector(n, f32)) @Vector(n, f32) {
    return @select(f32, a > b, a, b);
}

/// The integers `first` … `last`; `first` has number 0.
pub fn Integers(comptime first: comptime_int, comptime last: comptime_int) type {
    return struct {
        pub inline fn nearest(comptime n: usize, v: @Vector(n, f32)) @Vector(n, f32) {
            return round(n, smaller(n, larger(n, v, @splat(first)), @splat(last)));
        }
        pub inline fn number(comptime n: usize, level: @Vector(n, f32)) @Vector(n, u8) {
            return @intFromFloat(level - @as(@Vector(n, f32), @splat(first)));
        }
    };
}

/// A rising list of levels; the number is the place in it.
pub fn Levels(comptime rising: anytype) type {
    return struct {
        const levels: [rising.len]f32 = blk: {
            var list: [rising.len]f32 = undefined;
            for (rising, &list) |level, *as_float| as_float.* = level;
            break :blk list;
        };

        pub inline fn nearest(comptime n: usize, v: @Vector(n, f32)) @Vector(n, f32) {
            var level: @Vector(n, f32) = @splat(levels[0]);
            inline for (levels[1..], levels[0 .. levels.len - 1]) |upper, lower| {
                const middle: @Vector(n, f32) = @splat((upper + lower) / 2.0);
                level = @select(f32, v > middle, @as(@Vector(n, f32), @splat(upper)), level);
            }
            return level;
        }
        pub inline fn number(comptime n: usize, level: @Vector(n, f32)) @Vector(n, u8) {
            var result: @Vector(n, u8) = @splat(0);
            inline for (levels[1..]) |step| {
                const reached = level >= @as(@Vector(n, f32), @splat(step));
                result += @select(u8, reached, @as(@Vector(n, u8), @splat(1)), @as(@Vector(n, u8), @splat(0)));
            }
            return result;
        }
    };
}

/// 1 / scale, and 0 for a scale of 0, whose codes then mean zero.
pub inline fn inverse(comptime n: usize, scale: @Vector(n, f32)) @Vector(n, f32) {
    const zero: @Vector(n, f32) = @splat(0);
    const one: @Vector(n, f32) = @splat(1);
    const is_zero = scale == zero;
    return @select(f32, is_zero, zero, one / @select(f32, is_zero, one, scale));
}

/// `x` in the codes of `scale`, as numbers.
pub fn encode(
    comptime Codes: type,
    comptime n: usize,
    x: *const [n]f32,
    scale: f32,
    offset: f32,
    numbers: *[n]u8,
) void {
    const id = inverse(1, .{scale})[0];
    inline for (0..n / 16) |part| {
        const v: @Vector(16, f32) = x[part * 16 ..][0..16].*;
        const scaled = (v - @as(@Vector(16, f32), @splat(offset))) * @as(@Vector(16, f32), @splat(id));
        numbers[part * 16 ..][0..16].* = Codes.number(16, Codes.nearest(16, scaled));
    }
}

/// The nearest F16, kept finite.
pub fn toHalf(v: f32) f16 {
    return toHalves(1, .{v})[0];
}
pub fn toHalves(comptime n: usize, v: @Vector(n, f32)) @Vector(n, f16) {
    const most = std.math.floatMax(f16);
    return @floatCast(smaller(n, larger(n, v, @splat(-most)), @splat(most)));
}

pub const Range = struct {
    low: f32,
    high: f32,

    /// `x.len` is a multiple of 8.
    pub fn of(x: []const f32) Range {
        var low: @Vector(8, f32) = x[0..8].*;
        var high = low;
        var i: usize = 8;
        while (i < x.len) : (i += 8) {
            const v: @Vector(8, f32) = x[i..][0..8].*;
            low = smaller(8, v, low);
            high = larger(8, v, high);
        }
        return .{ .low = minimum(8, low), .high = maximum(8, high) };
    }

    /// The element with the largest magnitude, sign kept.
    pub fn extreme(range: Range) f32 {
        return if (range.high >= -range.low) range.high else range.low;
    }
};

/// The element with the largest magnitude, sign kept.
pub fn extreme(x: []const f32) f32 {
    return Range.of(x).extreme();
}

/// Neighbouring halves are added until one element is left: one order on every machine.
pub fn sum(comptime n: usize, v: @Vector(n, f32)) f32 {
    if (n == 1) return v[0];
    const a: [n]f32 = v;
    const low: @Vector(n / 2, f32) = a[0 .. n / 2].*;
    const high: @Vector(n / 2, f32) = a[n / 2 ..].*;
    return sum(n / 2, low + high);
}

/// `@reduce` of floats goes element by element and minds NaN; these halve, too.
pub fn minimum(comptime n: usize, v: @Vector(n, f32)) f32 {
    if (n == 1) return v[0];
    const a: [n]f32 = v;
    return minimum(n / 2, smaller(n / 2, a[0 .. n / 2].*, a[n / 2 ..].*));
}
pub fn maximum(comptime n: usize, v: @Vector(n, f32)) f32 {
    return -minimum(n, -v);
}
