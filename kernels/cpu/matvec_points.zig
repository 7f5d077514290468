//! Few activation rows against the IQ1 to IQ3 types where their points are decoded in planes
//! (quant/point_planes.zig): four weight rows at once, one quant block of 256 a step. A dword of a
//! plane is of 16 weights, so that four dot products leave a sum for each scale. Sums of a block are
//! exact, and rounded as in matvec_super.zig.
const simd = @import("../simd.zig");
const dots = @import("../dots.zig");
const planes = @import("../quant/point_planes.zig");
const Span = @import("matvec_span.zig").Span;
const Ahead = @import("matvec_span.zig").Ahead;
const SuperRow = @import("activation.zig").SuperRow;
const Floats4 = simd.Floats4;
const Ints = simd.Ints;

/// Products of the span's weight rows with M activation rows, `out` laid out as Span says.
pub fn multiply(
    comptime Q: type,
    comptime M: usize,
    span: Span,
    k: usize,
    input: *const [M]SuperRow,
    out: [*]f32,
    out_stride: usize,
) void {
    const size = @sizeOf(Q.Block);
    const row_bytes = k / 256 * size;
    for (0..span.count) |r| {
        var rows: [4][*]const u8 = undefined;
        inline for (0..4) |i| rows[i] = span.weight + span.row(i, r) * row_bytes;
        var ahead: Ahead = .{ .distance = span.prefetch_bytes };
        var acc: [M]Floats4 = @splat(@splat(0));
        for (0..k / 256) |step| {
            var p: [4][*]const u8 = undefined;
            inline for (0..4) |i| p[i] = rows[i] + step * size;
            addBlock(Q, M, p, step, input, &acc);
            ahead.ask(rows, size, (step + 1) * size);
        }
        inline for (0..M) |m| inline for (0..4) |i| {
            out[m * out_stride + i * span.count + r] = acc[m][i];
        };
    }
}

inline fn addBlock(
    comptime Q: type,
    comptime M: usize,
    p: [4][*]const u8,
    step: usize,
    input: *const [M]SuperRow,
    acc: *[M]Floats4,
) void {
    const weights = planes.ofFour(Q, p);
    const d = Q.header(p).d;
    inline for (0..M) |m| {
        const of_16: Ints = simd.load(@Vector(16, i16), input[m].sums + step * 32);
        const excess = of_16 *% @as(Ints, @splat(Q.offset));
        var sums: [4]Ints = undefined;
        inline for (&sums, weights, p) |*sum, own, block| {
            var products = @as(Ints, @splat(0)) -% excess;
            inline for (own, 0..) |plane, i| {
                const a = simd.load(simd.Bytes, input[m].planes + step * 256 + i * 64);
                products = dots.dot4(products, plane, a);
            }
            sum.* = products *% Q.scalesOf16(@ptrCast(block));
        }
        const t = @as(Floats4, @floatFromInt(simd.sumLanes(simd.sumQuads(sums)))) * d;
        acc[m] = simd.fmaBy(Floats4, t, input[m].d[step], acc[m]);
    }
}
