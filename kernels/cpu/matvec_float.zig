//! Few activation rows against F32, F16 and BF16 weights. Activations stay f32: 16 strands (k mod
//! 16) are summed in increasing k by fused multiply-add, then halved in a fixed order.
const std = @import("std");
const simd = @import("../simd.zig");
const Span = @import("matvec_span.zig").Span;
const Floats = simd.Floats;

/// Weight rows in work at once; as many accumulators per activation row.
const streams = if (simd.native_lanes == 16) 4 else 2;
pub const max_rows_at_once = if (simd.native_lanes == 16) 4 else 2;

/// Products of the span's weight rows with M activation rows, `out` laid out as Span says.
pub fn multiply(
    comptime Q: type,
    comptime M: usize,
    span: Span,
    k: usize,
    x: *const [M][*]const f32,
    out: [*]f32,
    out_stride: usize,
) void {
    for (0..span.count) |r| inline for (0..4 / streams) |group| {
        var p: [streams][*]const u8 = undefined;
        inline for (0..streams) |i| {
            p[i] = span.weight + span.row(group * streams + i, r) * k * @sizeOf(Q.Block);
        }
        const sums = someRows(Q, M, p, k, x, span.prefetch_bytes);
        inline for (0..M) |m| inline for (0..streams) |i| {
            out[m * out_stride + (group * streams + i) * span.count + r] = sums[m][i];
        };
    };
}

inline fn someRows(
    comptime Q: type,
    comptime M: usize,
    p: [streams][*]const u8,
    k: usize,
    x: *const [M][*]const f32,
    prefetch_bytes: usize,
) [M][streams]f32 {
    const size = @sizeOf(Q.Block);
    var acc: [M][streams]Floats = @splat(@splat(@splat(0)));
    var at: usize = 0;
    while (at + 16 <= k) : (at += 16) {
        inline for (0..streams) |i| {
            const w = Q.load(16, p[i] + at * size);
            simd.prefetch(p[i] + at * size + prefetch_bytes);
            inline for (0..M) |m| {
                acc[m][i] = simd.fma(Floats, w, simd.load(Floats, x[m] + at), acc[m][i]);
            }
        }
    }
    if (at < k) inline for (0..streams) |i| {
        const w = Q.loadFirst(p[i] + at * size, k - at);
        inline for (0..M) |m| {
            acc[m][i] = simd.fma(Floats, w, simd.loadFirst(x[m] + at, k - at), acc[m][i]);
        }
    };
    var sums: [M][streams]f32 = undefined;
    inline for (0..M) |m| inline for (0..streams) |i| {
        sums[m][i] = simd.sumHalving(acc[m][i]);
    };
    return sums;
}
