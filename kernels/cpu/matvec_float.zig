//! Few activation rows against F32, F16 and BF16 weights: 16 strands are summed in increasing k,
//! then halved in a fixed order.
const std = @import("std");
const simd = @import("../simd.zig");
const quant = @import("../quant/quant.zig");
const strands = @import("strands.zig");
const FlushDenormals = @import("../float_control.zig").FlushDenormals;
const Span = @import("matvec_span.zig").Span;
const Floats = simd.Floats;

/// Accumulators that the registers hold beside a weight and an activation.
const max_sums = if (simd.native_lanes == 16) 24 else 8;
pub const max_rows_at_once = if (simd.native_lanes == 16) 8 else 2;

/// Bytes of one activation row laid out as steps.
pub fn inputBytes(group: u32, k: usize) usize {
    return strands.numSteps(group, k) * strands.step_bytes;
}

pub fn layInput(comptime group: u32, x: []const f32, memory: [*]align(64) u8) void {
    const Row = strands.Activations(group);
    const target: [*]align(64) Row.Lanes = @ptrCast(memory);
    const source: [*]const u8 = @ptrCast(x.ptr);
    for (0..strands.numSteps(group, x.len) / Row.steps) |i| {
        target[i] = Row.read(source, i * Row.elements, x.len);
    }
}

/// Products of the span's weight rows with M activation rows, `out` laid out as Span says.
pub fn multiply(
    comptime t: quant.Type,
    comptime M: usize,
    span: Span,
    k: usize,
    x: *const [M][*]align(64) const u8,
    out: [*]f32,
    out_stride: usize,
) void {
    const mode: ?FlushDenormals = if (t == .bf16) .begin() else null;
    defer if (mode) |previous| previous.end();
    const Row = strands.Weights(t);
    const streams = if (4 * M <= max_sums) 4 else 2;
    for (0..span.count) |r| inline for (0..4 / streams) |group| {
        var rows: [streams][*]const u8 = undefined;
        inline for (0..streams) |i| {
            const row = span.row(group * streams + i, r);
            rows[i] = span.weight + row * k * @sizeOf(Row.Format.Block);
        }
        const sums = someRows(Row, M, streams, rows, k, x, span.prefetch_bytes);
        inline for (0..M) |m| inline for (0..streams) |i| {
            out[m * out_stride + (group * streams + i) * span.count + r] = sums[m][i];
        };
    };
}

inline fn someRows(
    comptime Row: type,
    comptime M: usize,
    comptime streams: usize,
    rows: [streams][*]const u8,
    k: usize,
    x: *const [M][*]align(64) const u8,
    prefetch_bytes: usize,
) [M][streams]f32 {
    const size = @sizeOf(Row.Format.Block);
    var acc: [M][streams]Floats = @splat(@splat(@splat(0)));
    const whole = k / Row.elements * Row.elements;
    var at: usize = 0;
    while (at < whole) : (at += Row.elements) {
        inline for (rows) |row| simd.prefetch(row + at * size + prefetch_bytes);
        addElements(Row, M, streams, &acc, rows, x, at, at + Row.elements);
    }
    if (whole < k) addElements(Row, M, streams, &acc, rows, x, whole, k);
    var sums: [M][streams]f32 = undefined;
    inline for (0..M) |m| inline for (0..streams) |i| {
        sums[m][i] = simd.sumHalving(acc[m][i]);
    };
    return sums;
}

/// Adds the elements that are read together from `at` on; those from `end` on do not exist.
inline fn addElements(
    comptime Row: type,
    comptime M: usize,
    comptime streams: usize,
    acc: *[M][streams]Floats,
    rows: [streams][*]const u8,
    x: *const [M][*]align(64) const u8,
    at: usize,
    end: usize,
) void {
    var w: [streams]Row.Lanes = undefined;
    inline for (0..streams) |i| w[i] = Row.read(rows[i], at, end);
    inline for (0..M) |m| {
        const steps: [*]align(64) const Row.Lanes = @ptrCast(x[m]);
        const v = steps[at / Row.elements];
        inline for (0..Row.steps) |s| inline for (0..streams) |i| {
            acc[m][i] = Row.multiplyAdd(16, acc[m][i], w[i][s], v[s]);
        };
    }
}
