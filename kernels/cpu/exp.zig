//! Vector exponential and hyperbolic tangent of f32, the same bits on every CPU variant.
//! Only additions, multiplications, comparisons and shifts: no library call, no conversion to int.
const std = @import("std");
const simd = @import("../simd.zig");

/// The larger of each pair; `b` where the two cannot be compared. One instruction, unlike `@max`.
pub inline fn larger(a: anytype, b: @TypeOf(a)) @TypeOf(a) {
    return @select(f32, a > b, a, b);
}

inline fn constant(comptime n: comptime_int, comptime value: f32) @Vector(n, f32) {
    return @splat(value);
}

inline fn horner(
    comptime n: comptime_int,
    x: @Vector(n, f32),
    comptime c: []const f32,
) @Vector(n, f32) {
    var sum = constant(n, c[0]);
    inline for (c[1..]) |next| sum = simd.fma(@Vector(n, f32), sum, x, constant(n, next));
    return sum;
}

/// 1.5 * 2^23: adding it to |x| < 2^22 leaves round(x) in the low mantissa bits.
const round_magic: f32 = 12582912.0;

/// e^x over the whole range of f32 within 2 ulp; e^0 is exactly 1, NaN stays NaN.
pub inline fn exp(comptime n: comptime_int, v: @Vector(n, f32)) @Vector(n, f32) {
    const Vec = @Vector(n, f32);
    const Int = @Vector(n, i32);
    // Beyond these the result is infinite or rounds to 0 anyway; NaN passes both comparisons.
    var x = @select(f32, v > constant(n, 90), constant(n, 90), v);
    x = @select(f32, x < constant(n, -104), constant(n, -104), x);
    const shifted = simd.fma(Vec, x, constant(n, std.math.log2e), constant(n, round_magic));
    const k = shifted - constant(n, round_magic);
    // ln 2 in two parts; k times the first is exact.
    var f = simd.fma(Vec, k, constant(n, -0.693359375), x);
    f = simd.fma(Vec, k, constant(n, 2.12194440054690583e-4), f);
    const tail = horner(n, f, &.{
        1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3,
        4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1,
    });
    const y = simd.fma(Vec, tail, f * f, f) + constant(n, 1);
    // Two factors, since 2^k alone leaves the range of f32 at both ends.
    const bits = @as(Int, @bitCast(shifted)) -% @as(Int, @splat(@bitCast(round_magic)));
    const half = bits >> @splat(1);
    return y * powerOfTwo(n, half) * powerOfTwo(n, bits -% half);
}

inline fn powerOfTwo(comptime n: comptime_int, k: @Vector(n, i32)) @Vector(n, f32) {
    return @bitCast((k +% @as(@Vector(n, i32), @splat(127))) << @splat(23));
}

/// 2^t for t <= 0 within 1.6e-7 of its value; exactly 1 at 0, 0 below -125,
/// NaN stays NaN.
pub inline fn exp2OfNegative(comptime n: comptime_int, t: @Vector(n, f32)) @Vector(n, f32) {
    const Bits = @Vector(n, u32);
    const shifted = t + constant(n, round_magic);
    const f = t - (shifted - constant(n, round_magic));
    const y = horner(n, f, &.{
        0.0013264722211301452, 0.009671512992994624, 0.055507337598216216,
        0.24022242077671788,   0.6931469775876407,   1.0,
    });
    // The low bits of `shifted` are round(t): added to the exponent of y they scale it.
    const exponent = @as(Bits, @bitCast(shifted)) << @splat(23);
    const scaled: @Vector(n, f32) = @bitCast(@as(Bits, @bitCast(y)) +% exponent);
    return @select(f32, t < constant(n, -125), constant(n, 0), scaled);
}

/// tanh(x) within a few ulp.
pub inline fn tanh(comptime n: comptime_int, x: @Vector(n, f32)) @Vector(n, f32) {
    const z = x * x;
    const small = simd.fma(@Vector(n, f32), x * z, horner(n, z, &.{
        -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1,
    }), x);
    const e = exp2OfNegative(n, @abs(x) * constant(n, -2 * std.math.log2e));
    const one = constant(n, 1);
    const magnitude = (one - e) / (one + e);
    const large = @select(f32, x < constant(n, 0), -magnitude, magnitude);
    return @select(f32, @abs(x) < constant(n, 0.625), small, large);
}

test "exp is within 2 ulp, exact at 0, and keeps its ends" {
    var bits: u32 = 0;
    var worst: f64 = 0;
    while (bits < 0x42b20000) : (bits += 977) { // 0 .. 89
        for ([2]u32{ 0, 0x80000000 }) |sign| {
            const x: f32 = @bitCast(bits | sign);
            const want = @exp(@as(f64, x));
            if (want > std.math.floatMax(f32) or want < std.math.floatMin(f32)) continue;
            const got: f64 = exp(1, .{x})[0];
            const ulp = std.math.ldexp(@as(f64, 1), std.math.ilogb(want) - 23);
            worst = @max(worst, @abs(got - want) / ulp);
        }
    }
    try std.testing.expect(worst <= 2);
    const inf = std.math.inf(f32);
    const ends: [4]f32 = exp(4, .{ 0, inf, -inf, 100 });
    try std.testing.expectEqual([4]f32{ 1, inf, 0, inf }, ends);
    try std.testing.expect(std.math.isNan(exp(1, .{std.math.nan(f32)})[0]));
}

test "exp2OfNegative and tanh" {
    var t: f32 = 0;
    while (t > -130) : (t -= 0.00137) {
        const got: f64 = exp2OfNegative(1, .{t})[0];
        const want = if (t < -125) 0 else @exp2(@as(f64, t));
        try std.testing.expect(@abs(got - want) <= 1.6e-7 * want);
        const x = (t + 65) / 8;
        const tangent = std.math.tanh(@as(f64, x));
        try std.testing.expect(@abs(tanh(1, .{x})[0] - tangent) <= 3.6e-7 * @abs(tangent));
    }
    try std.testing.expectEqual(@as(f32, 1), exp2OfNegative(1, .{0})[0]);
    try std.testing.expect(std.math.isNan(exp2OfNegative(1, .{std.math.nan(f32)})[0]));
}
