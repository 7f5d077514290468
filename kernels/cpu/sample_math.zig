//! Arithmetic of the sampler: exponential, logarithm, sums and the counter-based random stream.
//! No fused multiply-add and no libm: every variant, with FMA or without, computes the same bits.
const std = @import("std");

/// Width of every vector here on every variant, so that sums have one order.
pub const lanes = 16;
pub const Vec = @Vector(lanes, f32);
const Bits = @Vector(lanes, u32);

pub const infinity = std.math.inf(f32);
pub const largest = std.math.floatMax(f32);

pub fn splat(x: f32) Vec {
    return @splat(x);
}

/// Sixteen logits: +infinity becomes the largest finite number, and -0 becomes +0; NaN stays,
/// and loses every comparison.
pub fn load(from: [*]const f32) Vec {
    const x: Vec = @as(*align(4) const Vec, @ptrCast(from)).*;
    const limit = splat(largest);
    return @select(f32, x > limit, limit, x) + splat(0);
}

/// The larger in each lane; `a` where `b` is NaN.
pub fn larger(a: Vec, b: Vec) Vec {
    return @select(f32, b > a, b, a);
}

/// Largest lane of a vector without NaN.
pub fn maxLane(v: Vec) f32 {
    const halves = fold(v);
    var best: f32 = -infinity;
    inline for (0..4) |i| best = @max(best, @max(halves[i], halves[i + 4]));
    return best;
}

fn fold(v: Vec) @Vector(8, f32) {
    const low = std.simd.extract(v, 0, 8);
    const high = std.simd.extract(v, 8, 8);
    return @select(f32, high > low, high, low);
}

/// Sum of the lanes, halves first.
pub fn sumLanes(v: Vec) f32 {
    const a = std.simd.extract(v, 0, 8) + std.simd.extract(v, 8, 8);
    const b = std.simd.extract(a, 0, 4) + std.simd.extract(a, 4, 4);
    return (b[0] + b[2]) + (b[1] + b[3]);
}

/// e^x for x <= 0, within 2 units in the last place; 0 for NaN and below -87.3, where results
/// would be subnormal.
pub fn exp(x: Vec) Vec {
    // Adding 1.5 * 2^23 rounds x / ln 2 to an integer n, which the low bits then hold.
    const magic = splat(12582912.0);
    const shifted = x * splat(std.math.log2e) + magic;
    const n = shifted - magic;
    // ln 2 in two parts; the first has 9 bits, so that n times it is exact.
    const r = (x - n * splat(0.693359375)) - n * splat(-2.12194440e-4);
    // (e^r - 1 - r) / r^2 interpolated at 5 Chebyshev nodes of |r| <= ln 2 / 2: 1.1e-8 relative.
    var q = splat(0.0013926250394433737);
    q = q * r + splat(0.00836323294788599);
    q = q * r + splat(0.04166655242443085);
    q = q * r + splat(0.16666576266288757);
    q = q * r + splat(0.5);
    const y = ((r * r) * q + r) + splat(1);
    const power = @as(Bits, @bitCast(shifted)) << @splat(23);
    const scaled: Vec = @bitCast(@as(Bits, @bitCast(y)) +% power);
    return @select(f32, x >= splat(-87.3), scaled, splat(0));
}

pub fn expScalar(x: f32) f32 {
    return exp(splat(x))[0];
}

/// ln x for a positive normal x, to about 1e-16: x = m * 2^e, ln m = 2 artanh((m - 1) / (m + 1)).
pub fn ln(x: f64) f64 {
    const parts = std.math.frexp(x); // significand in [0.5, 1)
    const low = parts.significand < std.math.sqrt1_2;
    const m = if (low) parts.significand * 2 else parts.significand;
    const e: f64 = @floatFromInt(if (low) parts.exponent - 1 else parts.exponent);
    const s = (m - 1) / (m + 1);
    var series: f64 = 0;
    var power: f64 = 23;
    while (power > 0) : (power -= 2) series = series * (s * s) + 1 / power;
    return e * std.math.ln2 + 2 * s * series;
}

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3").
pub fn philox(start_counter: [4]u32, start_key: [2]u32) [4]u32 {
    var counter = start_counter;
    var key = start_key;
    for (0..10) |_| {
        const a = @as(u64, 0xD2511F53) * counter[0];
        const b = @as(u64, 0xCD9E8D57) * counter[2];
        counter = .{
            @as(u32, @truncate(b >> 32)) ^ counter[1] ^ key[0],
            @truncate(b),
            @as(u32, @truncate(a >> 32)) ^ counter[3] ^ key[1],
            @truncate(a),
        };
        key[0] +%= 0x9E3779B9;
        key[1] +%= 0xBB67AE85;
    }
    return counter;
}

/// Number `draw_index` of the seed's stream, uniform in [0, 1) with 53 bits.
pub fn uniform(seed_low: u32, seed_high: u32, draw_index: u32) f64 {
    const words = philox(.{ draw_index, 0, 0, 0 }, .{ seed_low, seed_high });
    const bits = @as(u64, words[0] >> 5) << 26 | words[1] >> 6;
    return @as(f64, @floatFromInt(bits)) * 0x1p-53;
}

test "philox known answers" {
    try std.testing.expectEqual(
        [4]u32{ 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 },
        philox(@splat(0), @splat(0)),
    );
    try std.testing.expectEqual(
        [4]u32{ 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd },
        philox(@splat(0xffffffff), @splat(0xffffffff)),
    );
}

test "exp and ln follow their functions" {
    var x: f32 = -87.25;
    while (x <= 0) : (x += 0.0137) {
        const want = std.math.exp(@as(f64, x));
        try std.testing.expectApproxEqRel(want, @as(f64, expScalar(x)), 2.4e-7);
    }
    try std.testing.expectEqual(1, expScalar(0));
    try std.testing.expectEqual(0, expScalar(-infinity));
    try std.testing.expectEqual(0, expScalar(std.math.nan(f32)));
    for ([_]f64{ 1e-9, 0.05, 0.7, 1, 1.5, 3, 250e3, 1e12 }) |v| {
        try std.testing.expectApproxEqAbs(@log(v), ln(v), 1e-14);
    }
}
