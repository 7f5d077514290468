//! Few activation rows against F32, F16 and BF16 weights. Activations stay f32: 16 strands (k mod
//! 16) are summed in increasing k by fused multiply-add, then halved in a fixed order.
const std = @import("std");
const simd = @import("../simd.zig");
const Floats = simd.Floats;

/// Weight rows in work at once; as many accumulators per activation row.
const streams = if (simd.native_lanes == 16) 4 else 2;
pub const max_rows_at_once = if (simd.native_lanes == 16) 4 else 2;
const prefetch_bytes = 4096;

/// out[m * out_stride + r] = weight row r · x[m], for all r < n and m < M.
pub fn multiply(
    comptime Q: type,
    comptime M: usize,
    weight: [*]const u8,
    n: usize,
    k: usize,
    x: *const [M][*]const f32,
    out: [*]f32,
    out_stride: usize,
) void {
    const size = @sizeOf(Q.Block);
    const apart = (n + streams - 1) / streams;
    for (0..apart) |first| {
        var index: [streams]usize = undefined;
        var p: [streams][*]const u8 = undefined;
        inline for (0..streams) |i| {
            index[i] = @min(first + i * apart, n - 1);
            p[i] = weight + index[i] * k * size;
        }
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
        inline for (0..M) |m| inline for (0..streams) |i| {
            out[m * out_stride + index[i]] = simd.sumHalving(acc[m][i]);
        };
    }
}
