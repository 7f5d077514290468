//! `Fused` against exact integers: every sum of a product and a f32 is a whole number of 2^-298.
const std = @import("std");
const simd = @import("simd.zig");
const Fused = @import("fused.zig").Fused;
const FlushDenormals = @import("float_control.zig").FlushDenormals;

const Exact = i640;
const lanes = 16;
const Floats = @Vector(lanes, f32);
/// Of one unit in units of the smallest f32.
const smallest_shift = 149;

/// `x` in units of 2^-149.
fn wholeOf(x: f32) Exact {
    const bits: u32 = @bitCast(x);
    const exponent = (bits >> 23) & 0xff;
    const mantissa = (bits & 0x7fffff) | (if (exponent == 0) @as(u32, 0) else 1 << 23);
    const magnitude = @as(Exact, mantissa) << @intCast(@max(exponent, 1) - 1);
    return if (bits >> 31 == 1) -magnitude else magnitude;
}

/// a * b + c, exact and then rounded to nearest even.
fn define(a: f32, b: f32, c: f32) f32 {
    const in_doubles = @as(f64, a) * b + c;
    const sum = wholeOf(a) * wholeOf(b) + (wholeOf(c) << smallest_shift);
    // Infinities, NaN and signs of zero follow their rules in every width.
    if (!std.math.isFinite(a + b + c) and !std.math.isFinite(in_doubles)) return @floatCast(in_doubles);
    if (sum == 0) return @floatCast(in_doubles);
    const magnitude = @abs(sum);
    const length: u32 = 640 - @clz(@as(u640, magnitude));
    const shift: u32 = @max(length, smallest_shift + 24) - 24;
    const rest = magnitude & ((@as(u640, 1) << @intCast(shift)) - 1);
    const half = @as(u640, 1) << @intCast(shift - 1);
    var whole: u64 = @intCast(magnitude >> @intCast(shift));
    if (rest > half or (rest == half and whole & 1 == 1)) whole += 1;
    const exponent = @as(i32, @intCast(shift)) - 2 * smallest_shift;
    const value: f32 = @floatCast(std.math.ldexp(@as(f64, @floatFromInt(whole)), exponent));
    return if (sum < 0) -value else value;
}

fn expectBits(expected: f32, actual: f32, a: f32, b: f32, c: f32) !void {
    const same = @as(u32, @bitCast(expected)) == @as(u32, @bitCast(actual));
    if (same or (std.math.isNan(expected) and std.math.isNan(actual))) return;
    std.debug.print("{x} * {x} + {x} = {x}, not {x}\n", .{ a, b, c, expected, actual });
    return error.OtherBits;
}

fn toBrain(x: f32) f32 {
    return @bitCast(@as(u32, @bitCast(x)) & 0xffff0000);
}

fn check(a: Floats, b: Floats, c: Floats) !void {
    const each = Fused(lanes).multiplyAdd(a, b, c);
    const by = Fused(lanes).multiplyAdd(a, b[0], c);
    const brain_a = toBrains(a);
    const brain_b = toBrains(b);
    const brains = Fused(lanes).addExactProduct(brain_a, brain_b, c);
    inline for (0..lanes) |i| {
        try expectBits(define(a[i], b[i], c[i]), each[i], a[i], b[i], c[i]);
        try expectBits(define(a[i], b[0], c[i]), by[i], a[i], b[0], c[i]);
        const expected = define(brain_a[i], brain_b[i], c[i]);
        try expectBits(expected, brains[i], brain_a[i], brain_b[i], c[i]);
    }
    const one = Fused(1).multiplyAdd(.{a[0]}, .{b[0]}, .{c[0]})[0];
    try expectBits(each[0], one, a[0], b[0], c[0]);
}
fn toBrains(x: Floats) Floats {
    var brains: [lanes]f32 = x;
    for (&brains) |*value| value.* = toBrain(value.*);
    return brains;
}

/// Three operands; where `kind` says so, a product next to half a unit in the last place of c.
fn operands(random: std.Random, kind: usize) [3]f32 {
    var bits: [3]u32 = undefined;
    for (&bits) |*word| word.* = random.int(u32);
    const c: f32 = @bitCast(if (kind % 4 < 2) bits[2] else bits[2] & 0x81ffffff);
    if (kind == 0 or !std.math.isFinite(c)) return @bitCast(bits);
    if (kind == 1) {
        // Exponents near one another, few bits: exact ties and cancellation.
        for (&bits) |*word| word.* = word.* & 0x81fff000 | 0x3e000000;
        return @bitCast(bits);
    }
    const exponent = @max((@as(u32, @bitCast(c)) >> 23) & 0xff, 1);
    const half = std.math.ldexp(@as(f64, 1), @as(i32, @intCast(exponent)) - 127 - 24);
    // (1 + i u)(1 - i u) is short of 1 by (i u)^2, which f64 cannot hold beside c.
    const u = @as(f64, @floatFromInt(random.uintLessThan(u32, 4))) * 0x1p-23;
    const scale = std.math.ldexp(@as(f64, 1), @intCast(random.uintLessThan(u32, 40)));
    const sign: f64 = if (bits[0] & 1 == 0) 1 else -1;
    const v = if (bits[0] & 2 == 0) u else 0;
    const a: f32 = @floatCast(sign * (1 + u) * scale * half * 0x1p40);
    const b: f32 = @floatCast((1 - v) / scale * 0x1p-40);
    return .{ a, b, c };
}

test "every kind of operands, against exact arithmetic" {
    var source = std.Random.DefaultPrng.init(7);
    const random = source.random();
    for (0..4000) |_| {
        var rows: [3][lanes]f32 = undefined;
        for (0..lanes) |lane| {
            // One kind that is computed again among others that are not.
            const three = operands(random, random.uintLessThan(usize, 5));
            for (&rows, three) |*row, value| row[lane] = value;
        }
        try check(rows[0], rows[1], rows[2]);
    }
}

test "zeros, subnormals, the ends of the range, infinities and NaN" {
    const inf = std.math.inf(f32);
    const values = [lanes]f32{
        0,         -0.0,           1,               -1,  0x1p-149, -0x1p-149,         0x1.fffffcp-127, 0x1p-126, //
        -0x1p-126, 0x1.fffffep127, -0x1.fffffep127, inf, -inf,     std.math.nan(f32), 0x1p-75,         0x1.000002p64,
    };
    for (values) |a| for (0..lanes) |turn| {
        var b: [lanes]f32 = undefined;
        for (&b, 0..) |*value, i| value.* = values[(i + turn) % lanes];
        try check(@splat(a), b, values);
    };
}

test "as the instruction, while subnormals count as zeros" {
    if (!simd.has_fma) return error.SkipZigTest;
    var source = std.Random.DefaultPrng.init(11);
    const random = source.random();
    for (0..20_000) |_| {
        // Accesses to memory, unlike arithmetic, stay where the mode is.
        var memory: [3]f32 = operands(random, 2 + random.uintLessThan(usize, 3));
        const operand: *volatile [3]f32 = &memory;
        var results: [4]f32 = undefined;
        const result: *volatile [4]f32 = &results;
        const mode: FlushDenormals = .begin();
        const a, const b, const c = operand.*;
        result[0] = Fused(1).multiplyAdd(.{a}, .{b}, .{c})[0];
        result[1] = Fused(1).addExactProduct(.{toBrain(a)}, .{toBrain(b)}, .{c})[0];
        result[2] = @mulAdd(f32, a, b, c);
        result[3] = @mulAdd(f32, toBrain(a), toBrain(b), c);
        mode.end();
        try expectBits(results[2], results[0], a, b, c);
        try expectBits(results[3], results[1], toBrain(a), toBrain(b), c);
    }
}
