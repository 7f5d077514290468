//! Few activation rows against weights in blocks of 32: four weight rows at once, four blocks a
//! step. Integer sums are exact, floats are added block by block.
const std = @import("std");
const simd = @import("../simd.zig");
const dots = @import("../dots.zig");
const block32 = @import("../quant/block32.zig");
const activation = @import("activation.zig");
const Span = @import("matvec_span.zig").Span;
const Ahead = @import("matvec_span.zig").Ahead;
const BlockRow = activation.BlockRow;
const Floats = simd.Floats;
const Floats4 = simd.Floats4;
const Ints = simd.Ints;

/// Products of the span's weight rows with M activation rows, `out` laid out as Span says.
pub fn multiply(
    comptime Q: type,
    comptime M: usize,
    span: Span,
    k: usize,
    input: *const [M]BlockRow,
    out: [*]f32,
    out_stride: usize,
) void {
    const row_bytes = k / Q.block_len * @sizeOf(Q.Block);
    for (0..span.count) |r| {
        var p: [4][*]const u8 = undefined;
        inline for (0..4) |i| p[i] = span.weight + span.row(i, r) * row_bytes;
        const sums = fourRows(Q, M, p, k, input.*, span.prefetch_bytes);
        inline for (0..M) |m| inline for (0..4) |i| {
            out[m * out_stride + i * span.count + r] = sums[m][i];
        };
    }
}

inline fn fourRows(
    comptime Q: type,
    comptime M: usize,
    start: [4][*]const u8,
    k: usize,
    input: [M]BlockRow,
    prefetch_bytes: usize,
) [M]Floats4 {
    const step_bytes = 128 / Q.block_len * @sizeOf(Q.Block);
    var rows = start;
    var ahead: Ahead = .{ .distance = prefetch_bytes };
    var acc: [M]Floats4 = @splat(@splat(0));
    var padded: [4][step_bytes]u8 = undefined;
    var step: usize = 0;
    // The step at `rows`.
    var first: usize = 0;
    var end = k / 128;
    // Twice at most: the whole steps, then one over a zero-padded copy of the last 1 to 3 blocks,
    // so that nothing past the row is read and the loop's code exists once.
    while (true) {
        while (step < end) : (step += 1) {
            var p: [4][*]const u8 = undefined;
            inline for (0..4) |i| p[i] = rows[i] + (step - first) * step_bytes;
            addStep(Q, M, p, step, &input, &acc);
            ahead.ask(rows, step_bytes, (step + 1) * step_bytes);
        }
        if (step * 128 >= k) return acc;
        end = step + 1;
        const left = k % 128 / Q.block_len * @sizeOf(Q.Block);
        for (0..4) |i| {
            padded[i] = @splat(0);
            @memcpy(padded[i][0..left], rows[i] + step * step_bytes);
            rows[i] = &padded[i];
        }
        first = step;
    }
}

inline fn addStep(
    comptime Q: type,
    comptime M: usize,
    p: [4][*]const u8,
    step: usize,
    input: *const [M]BlockRow,
    acc: *[M]Floats4,
) void {
    var quants: [4]block32.Quants = undefined;
    inline for (0..4) |i| quants[i] = Q.quants(p[i]);
    const size = @sizeOf(Q.Block);
    const d = if (@hasDecl(Q, "scales"))
        Q.scales(p)
    else
        block32.scales(p, size, @offsetOf(Q.Block, "d"));
    const second = if (@hasDecl(Q, "has_two_scales")) Q.secondScales(p) else undefined;
    const min = if (Q.has_min) block32.scales(p, size, @offsetOf(Q.Block, "m")) else undefined;
    inline for (0..M) |m| {
        const q = input[m].q + step * 128;
        const low = simd.load(simd.Bytes, q);
        const high = simd.load(simd.Bytes, q + 64);
        const negative_sums = simd.load(Ints, input[m].negative_sums + step * 16);
        // offset * Σa is subtracted by where the sum starts; the offsets are powers of two.
        const shift = if (Q.offset == 0) 0 else std.math.log2_int(u32, Q.offset);
        const bias: Ints = if (Q.offset == 0) @splat(0) else negative_sums << @splat(shift);
        const dot = if (Q.is_signed) dots.dot4Signed else dots.dot4;
        var partial: [4]Ints = undefined;
        // Element 4j + i: block j of weight row i.
        var t: Floats = undefined;
        if (@hasDecl(Q, "has_two_scales")) {
            const zero: Ints = @splat(0);
            const bias_low = @select(i32, is_low, bias, zero);
            const bias_high = @select(i32, is_low, zero, bias);
            inline for (0..4) |i| partial[i] = dot(bias_low, quants[i][0], low);
            t = @as(Floats, @floatFromInt(simd.sumQuads(partial))) * d;
            inline for (0..4) |i| partial[i] = dot(bias_high, quants[i][1], high);
            t = simd.fma(Floats, @floatFromInt(simd.sumQuads(partial)), second, t);
        } else {
            inline for (0..4) |i| {
                partial[i] = dot(dot(bias, quants[i][0], low), quants[i][1], high);
            }
            t = @as(Floats, @floatFromInt(simd.sumQuads(partial))) * d;
        }
        if (Q.has_min) t = simd.fma(Floats, blockSums(negative_sums), min, t);
        t = simd.keepWhole(t);
        inline for (0..4) |j| {
            const d_a = input[m].d[step * 4 + j];
            acc[m] = simd.fmaBy(Floats4, simd.part(f32, 4, t, j * 4), d_a, acc[m]);
        }
    }
}

/// Where the sums of the first half of each block are.
const is_low: @Vector(16, bool) = [4]bool{ true, true, false, false } ** 4;

/// The block's whole activation sum in all four elements of its lane.
inline fn blockSums(negative_sums: Ints) Floats {
    const swapped = simd.shuffleLanes(i32, negative_sums, negative_sums, .{ 1, 0, 3, 2 });
    const pairs = negative_sums +% swapped;
    const total = pairs +% simd.shuffleLanes(i32, pairs, pairs, .{ 2, 3, 0, 1 });
    return @floatFromInt(@as(Ints, @splat(0)) -% total);
}
