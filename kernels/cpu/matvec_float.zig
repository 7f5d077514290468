//! Few activation rows against F32, F16, BF16 and 8-bit float weights: 16 strands are summed in
//! increasing k, then halved in a fixed order.
const std = @import("std");
const assert = std.debug.assert;
const simd = @import("../simd.zig");
const brain = @import("../brain.zig");
const quant = @import("../quant/quant.zig");
const strands = @import("strands.zig");
const RowScales = @import("../quant/scales.zig").RowScales;
const FlushDenormals = @import("../float_control.zig").FlushDenormals;
const Target = @import("matvec_span.zig").Target;
const streamOf = @import("matvec_span.zig").streamOf;
const Floats = simd.Floats;

/// Whether two rows of `k` elements are read side by side instead of four. Pairs that one instruction
/// multiplies need no more sums (one thread of Zen 4, BF16: 98 -> 103 % of its reads); activations
/// that leave no room in a first-level cache are shared by four.
pub fn takesTwo(t: quant.Type, k: usize) bool {
    return t == .bf16 and brain.has_dot and k <= 4096;
}
/// Four sums each, beside the weights and an activation: as many as the registers hold.
pub const max_rows_at_once = if (simd.native_lanes == 16) 6 else 2;

/// Bytes of one activation row laid out as steps, and one more: at distances of whole pages the rows
/// would have the same sets of a first-level cache (Zen 4).
pub fn inputBytes(group: u32, k: usize) usize {
    return (strands.numSteps(group, k) + 1) * strands.step_bytes;
}

pub fn layInput(comptime group: u32, x: []const f32, memory: [*]align(64) u8) void {
    const Row = strands.Activations(group);
    const target: [*]align(64) Row.Lanes = @ptrCast(memory);
    const source: [*]const u8 = @ptrCast(x.ptr);
    for (0..strands.numSteps(group, x.len) / Row.steps) |i| {
        target[i] = Row.read(source, i * Row.elements, x.len, 1);
    }
}

/// Products of the targets' weight rows, `streams` of which are read side by side, with M activation
/// rows, of which the step's `first` is one.
pub fn multiply(
    comptime streams: usize,
    comptime t: quant.Type,
    comptime M: usize,
    targets: []const Target,
    k: usize,
    x: *const [M][*]align(64) const u8,
    first: usize,
    out_stride: usize,
) void {
    assert(streams == targets.len * targets[0].span.parts);
    const span = &targets[0].span;
    const mode: ?FlushDenormals = if (t == .bf16) .begin() else null;
    defer if (mode) |previous| previous.end();
    const Row = strands.Weights(t);
    // Lines are asked for evenly, not some at a time: three quarters of the distance suit (Zen 5,
    // BF16: 3 to 5 % faster where memory is fast).
    const prefetch_bytes = span.prefetch_bytes / 4 * 3;
    for (0..span.count) |r| {
        var rows: [streams]WeightRow = undefined;
        inline for (0..streams) |i| {
            const target, const part = streamOf(targets, i);
            const row = target.span.row(part, r);
            rows[i] = .{
                .start = target.span.weight + row * k * @sizeOf(Row.Format.Block),
                .scales = target.span.scales.ofRow(row),
            };
        }
        const sums = someRows(streams, Row, M, &rows, k, x, prefetch_bytes);
        inline for (0..M) |m| inline for (0..streams) |i| {
            const target, const part = streamOf(targets, i);
            target.out[(first + m) * out_stride + part * span.count + r] = sums[m][i];
        };
    }
}

const WeightRow = struct { start: [*]const u8, scales: RowScales };

inline fn someRows(
    comptime streams: usize,
    comptime Row: type,
    comptime M: usize,
    rows: *const [streams]WeightRow,
    k: usize,
    x: *const [M][*]align(64) const u8,
    prefetch_bytes: usize,
) [M][streams]f32 {
    var acc: Sums(streams, M) = @splat(@splat(@splat(0)));
    var run: Run(streams) = undefined;
    inline for (rows, &run.starts) |row, *start| start.* = row.start;
    run.prefetch_bytes = prefetch_bytes;
    if (Row.is_scaled) {
        // All rows have the same blocks of columns.
        const block_cols = rows[0].scales.block_cols;
        var first: usize = 0;
        var block: usize = 0;
        while (first < k) : ({
            block += 1;
            first = block * block_cols;
        }) {
            inline for (rows, &run.scales) |row, *scale| scale.* = row.scales.values[block];
            const end = @min(first + block_cols, k);
            addColumns(streams, Row, M, &acc, &run, x, first, end);
        }
    } else {
        run.scales = @splat(1);
        addColumns(streams, Row, M, &acc, &run, x, 0, k);
    }
    var sums: [M][streams]f32 = undefined;
    inline for (0..M) |m| inline for (0..streams) |i| {
        sums[m][i] = simd.sumHalving(acc[m][i]);
    };
    return sums;
}

fn Sums(comptime streams: usize, comptime M: usize) type {
    return [M][streams]Floats;
}

/// Weight rows that are read side by side, in columns that have one scale each.
fn Run(comptime streams: usize) type {
    return struct { starts: [streams][*]const u8, scales: [streams]f32, prefetch_bytes: usize };
}

/// Adds the products of columns `first` to `end`; what follows `end` does not exist, or `end` is a
/// multiple of the elements that are read together.
inline fn addColumns(
    comptime streams: usize,
    comptime Row: type,
    comptime M: usize,
    acc: *Sums(streams, M),
    run: *const Run(streams),
    x: *const [M][*]align(64) const u8,
    first: usize,
    end: usize,
) void {
    const length = Row.elements * Row.reads;
    // Reads of less than a line follow one another.
    const turns = @max(1, 64 / (length * @sizeOf(Row.Format.Block)));
    const whole = first + (end - first) / (turns * length) * turns * length;
    var at = first;
    while (at < whole) {
        inline for (run.starts) |start| {
            simd.prefetchOnce(start + at * @sizeOf(Row.Format.Block) + run.prefetch_bytes);
        }
        inline for (0..turns) |_| {
            var w: [streams][Row.reads]Row.Lanes = undefined;
            inline for (&w, run.starts, run.scales) |*own, start, scale| {
                own.* = Row.readSome(start, at, scale);
            }
            addProducts(streams, Row, M, Row.reads, acc, &w, x, at);
            at += length;
        }
    }
    while (at < end) : (at += Row.elements) {
        var w: [streams][1]Row.Lanes = undefined;
        inline for (&w, run.starts, run.scales) |*own, start, scale| {
            own.* = .{Row.read(start, at, end, scale)};
        }
        addProducts(streams, Row, M, 1, acc, &w, x, at);
    }
}

/// Adds the products of what was read from element `at` on.
inline fn addProducts(
    comptime streams: usize,
    comptime Row: type,
    comptime M: usize,
    comptime reads: usize,
    acc: *Sums(streams, M),
    w: *const [streams][reads]Row.Lanes,
    x: *const [M][*]align(64) const u8,
    at: usize,
) void {
    inline for (0..reads) |read| inline for (0..M) |m| {
        const steps: [*]align(64) const Row.Lanes = @ptrCast(x[m]);
        const v = steps[at / Row.elements + read];
        inline for (0..Row.steps) |s| inline for (0..streams) |i| {
            acc[m][i] = Row.multiplyAdd(16, acc[m][i], w[i][read][s], v[s]);
        };
    };
}
