//! norm: RMS or layer normalisation of each row, with optional weight and bias; products call the
//! same routine for their input.
//!
//! Sums run in 64 strands (element i in strand i mod 64) that are halved at the end, with no
//! fused operations: the same bits on every CPU.
const std = @import("std");
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const rows_file = @import("rows.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;

const strands = 64;
const Lane = @Vector(16, f32);

pub fn run(step: *const Step, op: *const plan.Norm, worker: *Worker) void {
    const norm: RowNorm = .of(step, &op.norm);
    const width: usize = step.tensors[op.input].width;
    const group: usize = op.group_width;
    var rows: rows_file.RowPhase = .of(step, op.input, worker);
    while (rows.next()) |range| {
        const first, const end = range;
        const x = step.tensor(op.input) + first * width;
        const y = step.tensor(op.output) + first * width;
        for (0..end - first) |t| {
            var start: usize = 0;
            while (start < width) : (start += group) {
                const at = t * width + start;
                norm.from(start % norm.width).apply(x[at..][0..group], y[at..][0..group]);
            }
        }
    }
}

/// The norm of one row, its weights found.
pub const RowNorm = struct {
    kind: plan.NormKind,
    weight: ?[*]align(4) const f32,
    bias: ?[*]align(4) const f32,
    epsilon: f32,
    /// Values that weight and bias have; any number without them.
    width: usize,

    pub fn of(step: *const Step, norm: *const plan.RowNorm) RowNorm {
        return .{
            .kind = norm.kind,
            .weight = step.vector(norm.weight),
            .bias = step.vector(norm.bias),
            .epsilon = norm.epsilon,
            .width = for ([_]u32{ norm.weight, norm.bias }) |id| {
                if (id != plan.none) break step.weights[id].cols;
            } else 1,
        };
    }

    /// The norm whose weights begin at `start`.
    fn from(norm: RowNorm, start: usize) RowNorm {
        var part = norm;
        if (norm.weight) |weight| part.weight = weight + start;
        if (norm.bias) |bias| part.bias = bias + start;
        return part;
    }

    /// `y` may be `x`.
    pub fn apply(norm: *const RowNorm, x: []const f32, y: []f32) void {
        const count: f64 = @floatFromInt(x.len);
        const mean: f32 = switch (norm.kind) {
            .rms => 0,
            .layer => @floatCast(sumOf(.values, x, 0) / count),
            .absent => unreachable,
        };
        const variance = sumOf(.squares, x, mean) / count;
        const scale: f32 = @floatCast(1 / @sqrt(variance + norm.epsilon));
        const weight = norm.weight;
        const bias = norm.bias;
        var i: usize = 0;
        while (i + 16 <= x.len) : (i += 16) write(16, i, x, y, mean, scale, weight, bias);
        while (i < x.len) : (i += 1) write(1, i, x, y, mean, scale, weight, bias);
    }
};

inline fn write(
    comptime n: comptime_int,
    i: usize,
    x: []const f32,
    y: []f32,
    mean: f32,
    scale: f32,
    weight: ?[*]align(4) const f32,
    bias: ?[*]align(4) const f32,
) void {
    const Vec = @Vector(n, f32);
    var value = (@as(Vec, x[i..][0..n].*) - @as(Vec, @splat(mean))) * @as(Vec, @splat(scale));
    if (weight) |w| value *= w[i..][0..n].*;
    if (bias) |b| value += b[i..][0..n].*;
    y[i..][0..n].* = value;
}

const Sum = enum { values, squares };

/// Sum of the values, or of the squares of their distances from `mean`.
fn sumOf(comptime what: Sum, x: []const f32, mean: f32) f64 {
    var sums: [strands / 16]Lane = @splat(@splat(0));
    var i: usize = 0;
    while (i + strands <= x.len) : (i += strands) {
        inline for (&sums, 0..) |*sum, s| sum.* += term(what, x[i + s * 16 ..][0..16].*, mean);
    }
    if (i < x.len) {
        // The rest of the row fills the strands from the first one; missing terms add nothing.
        var rest: [strands]f32 = @splat(mean);
        if (what == .values) rest = @splat(0);
        @memcpy(rest[0 .. x.len - i], x[i..]);
        inline for (&sums, 0..) |*sum, s| sum.* += term(what, rest[s * 16 ..][0..16].*, mean);
    }
    const both = (sums[0] + sums[2]) + (sums[1] + sums[3]);
    return halve(16, both);
}

inline fn term(comptime what: Sum, x: Lane, mean: f32) Lane {
    if (what == .values) return x;
    const distance = x - @as(Lane, @splat(mean));
    return distance * distance;
}

fn halve(comptime n: comptime_int, v: @Vector(n, f32)) f32 {
    if (n == 1) return v[0];
    const low = std.simd.extract(v, 0, n / 2);
    const high = std.simd.extract(v, n / 2, n / 2);
    return halve(n / 2, low + high);
}
