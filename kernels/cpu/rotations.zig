//! rotations: the step's RoPE table, cosines and sines of position times frequency.
//! Angles are formed and reduced in f64, since f32 loses the phase of long positions.
const std = @import("std");
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;

const lanes = 8;
const Vec = @Vector(lanes, f64);
/// Token rows in one unit of work.
const rows_per_unit = 16;

pub fn run(step: *const Step, op: *const plan.Rotations, worker: *Worker) void {
    const frequencies = step.vector(op.frequencies).?;
    const n: usize = step.weights[op.frequencies].cols;
    const positions = step.array(i32, step.data.positions);
    const output = step.tensor(op.output);
    const num_rows = step.data.num_tokens;

    var phase = worker.phase((num_rows + rows_per_unit - 1) / rows_per_unit);
    while (phase.next()) |unit| {
        const first = unit * rows_per_unit;
        for (first..@min(first + rows_per_unit, num_rows)) |t| {
            const row = output[t * 2 * n ..][0 .. 2 * n];
            fillRow(frequencies[0..n], positions[t], op.magnitude, row);
        }
    }
}

/// row = n cosines, then n sines.
fn fillRow(frequencies: []align(4) const f32, position: i32, magnitude: f32, row: []f32) void {
    const n = frequencies.len;
    const at: Vec = @splat(@floatFromInt(position));
    const factor: @Vector(lanes, f32) = @splat(magnitude);
    var i: usize = 0;
    while (i < n) : (i += lanes) {
        const count = @min(lanes, n - i);
        var part: [lanes]f32 = @splat(0);
        @memcpy(part[0..count], frequencies[i..][0..count]);
        const cos, const sin = cosSin(at * @as(Vec, @as(@Vector(lanes, f32), part)));
        const cosines: [lanes]f32 = @as(@Vector(lanes, f32), @floatCast(cos)) * factor;
        const sines: [lanes]f32 = @as(@Vector(lanes, f32), @floatCast(sin)) * factor;
        @memcpy(row[i..][0..count], cosines[0..count]);
        @memcpy(row[n + i ..][0..count], sines[0..count]);
    }
}

/// 1.5 * 2^52: adding it to |x| < 2^51 leaves round(x) in the low mantissa bits.
const round_magic: f64 = 6755399441055744.0;
/// pi / 2 in parts of 29, 29 and 53 bits: whole multiples up to 2^24 of the first two are exact,
/// so angles up to 2.6e7 keep full precision; at 2^31 the error is still below 1e-6.
const half_pi: [3]f64 = blk: {
    const exact: f128 = 1.57079632679489661923132169163975144209858469968755;
    const first = @floor(exact * 0x1p28) * 0x1p-28;
    const second = @floor((exact - first) * 0x1p57) * 0x1p-57;
    break :blk .{ first, second, exact - first - second };
};

/// Cosine and sine of `angle`, to about 1e-12: no fused operations, so equal on every CPU.
fn cosSin(angle: Vec) struct { Vec, Vec } {
    const Bits = @Vector(lanes, u64);
    const shifted = angle * @as(Vec, @splat(2.0 / std.math.pi)) + @as(Vec, @splat(round_magic));
    const turns = shifted - @as(Vec, @splat(round_magic));
    var x = angle;
    inline for (half_pi) |part| x -= turns * @as(Vec, @splat(part));
    const z = x * x;
    // Taylor series, whose next terms are below 1e-12 for |x| <= pi/4.
    const sin = x + x * z * series(z, &.{
        1.0 / 6227020800.0, -1.0 / 39916800.0, 1.0 / 362880.0,
        -1.0 / 5040.0,      1.0 / 120.0,       -1.0 / 6.0,
    });
    const cos = @as(Vec, @splat(1)) + z * series(z, &.{
        -1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0, 1.0 / 40320.0,
        -1.0 / 720.0,         1.0 / 24.0,        -0.5,
    });

    const quadrant: Bits = @bitCast(shifted);
    const one: Bits = @splat(1);
    const odd = (quadrant & one) != @as(Bits, @splat(0));
    // Quadrants 1 and 2 turn the cosine's sign, 2 and 3 the sine's.
    const cos_sign = ((quadrant +% one) & @as(Bits, @splat(2))) << @splat(62);
    const sin_sign = (quadrant & @as(Bits, @splat(2))) << @splat(62);
    const cosine: Bits = @bitCast(@select(f64, odd, sin, cos));
    const sine: Bits = @bitCast(@select(f64, odd, cos, sin));
    return .{ @bitCast(cosine ^ cos_sign), @bitCast(sine ^ sin_sign) };
}

inline fn series(z: Vec, comptime coefficients: []const f64) Vec {
    var sum: Vec = @splat(coefficients[0]);
    inline for (coefficients[1..]) |next| sum = sum * z + @as(Vec, @splat(next));
    return sum;
}

test "cosines and sines agree with the library" {
    var position: i32 = 0;
    while (position < 3_000_000) : (position += 997) {
        const frequencies = [_]f32{ 1, 0.8659643, 0.31622776, 0.1, 1.3e-3, 1e-4, 0, 0.5, 0.99 };
        var row: [18]f32 = undefined;
        fillRow(&frequencies, position, 1, &row);
        for (frequencies, row[0..9], row[9..]) |frequency, cos, sin| {
            const angle = @as(f64, @floatFromInt(position)) * frequency;
            try std.testing.expect(@abs(cos - @cos(angle)) < 6.1e-8);
            try std.testing.expect(@abs(sin - @sin(angle)) < 6.1e-8);
        }
    }
}
