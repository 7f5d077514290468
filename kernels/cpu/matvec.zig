//! The rows regime: few activation rows against native quant blocks, the weights read once from
//! memory. Lays out the activations and picks the kernel of a weight type.
const std = @import("std");
const simd = @import("../simd.zig");
const brain = @import("../brain.zig");
const exports = @import("../exports.zig");
const quant = @import("../quant/quant.zig");
const activation = @import("activation.zig");
const blocks = @import("matvec_blocks.zig");
const super = @import("matvec_super.zig");
const float = @import("matvec_float.zig");
const interleave = @import("../interleave.zig");
const interleaved = @import("matvec_interleaved.zig");
const float_interleaved = @import("matvec_float_interleaved.zig");
const beside = @import("matvec_float_beside.zig");
const RowUnpacker = @import("unpackers.zig").RowUnpacker;
const matvec_span = @import("matvec_span.zig");
const Layout = @import("../plan.zig").Layout;
pub const Span = matvec_span.Span;
pub const Target = matvec_span.Target;

/// Bytes of one activation row laid out for `group`.
pub fn inputBytes(group: u32, k: usize) usize {
    return switch (group) {
        32 => activation.BlockRow.bytes(k),
        256 => activation.SuperRow.bytes(k),
        else => float.inputBytes(group, k),
    };
}

/// Lays x `[k]` out in `memory`, `inputBytes(group, k)` long.
pub fn layInput(group: u32, x: []const f32, memory: [*]align(64) u8) void {
    switch (group) {
        32 => activation.BlockRow.at(memory, x.len).fill(x),
        256 => activation.SuperRow.at(memory, x.len).fill(x),
        inline 0, quant.brain_group => |id| float.layInput(id, x, memory),
        else => unreachable,
    }
}

/// The activation rows of one op.
pub const Input = struct {
    num_rows: usize,
    k: usize,
    /// Rows laid out by `layInput`, one after another, for the weight's group.
    laid: [*]align(64) u8,
    /// Rows of floats are laid out by `layBeside`.
    are_beside: bool = false,
};

/// Whether so many rows laid out for `group` are faster side by side, where all weights lie
/// interleaved: more than two floats, or four pairs that one instruction multiplies (one thread of
/// Zen 4, F16, 4 rows: 172 -> 128 ms for a 1B model; BF16 125 and 128).
pub fn wantsBeside(group: u32, num_rows: usize) bool {
    return switch (group) {
        0 => num_rows > 2,
        quant.brain_group => num_rows > if (brain.has_dot) 4 else 2,
        else => false,
    };
}

/// Lays x `[k]` out as row `row` of `count` side by side in `memory`, `inputBytes(group, k)` long each.
pub fn layBeside(group: u32, x: []const f32, row: usize, count: usize, memory: [*]align(64) u8) void {
    const place: beside.Place = .of(row, count);
    const part: [*]u32 = @ptrCast(@alignCast(memory + place.first * inputBytes(group, x.len)));
    switch (group) {
        inline 0, quant.brain_group => |id| beside.layInput(id, x, row - place.first, place.size, part),
        else => unreachable,
    }
}

/// Products of weight rows with all input rows: those of row m `m * out_stride` further on. Two
/// targets are read together, as `slices.Slice` says.
pub fn multiply(
    weight_type: quant.Type,
    targets: []const Target,
    input: Input,
    out_stride: usize,
) void {
    switch (targets[0].span.layout) {
        .rows => multiplyIn(.rows, weight_type, targets, &input, out_stride),
        .interleaved => multiply_interleaved(weight_type, targets.ptr, targets.len, &input, out_stride),
        _ => unreachable,
    }
}

/// `multiplyInterleaved`, from the object of kernels/panels.zig.
const multiply_interleaved = exports.imported(@TypeOf(multiplyInterleaved), "multiply_interleaved");

pub fn multiplyInterleaved(
    weight_type: quant.Type,
    targets: [*]const Target,
    num_targets: usize,
    input: *const Input,
    out_stride: usize,
) callconv(.c) void {
    multiplyIn(.interleaved, weight_type, targets[0..num_targets], input, out_stride);
}

fn multiplyIn(
    comptime own: Layout,
    weight_type: quant.Type,
    targets: []const Target,
    input: *const Input,
    out_stride: usize,
) void {
    switch (weight_type) {
        inline else => |t| if (comptime own == .rows or interleave.hasLayout(t)) {
            const is_float = comptime own == .interleaved and quant.Format(t).block_len == 1;
            if (is_float and input.are_beside) return multiplyBeside(t, targets, input, out_stride);
            multiplyAll(t, own, targets, input, out_stride);
        } else unreachable,
    }
}

fn multiplyAll(
    comptime t: quant.Type,
    comptime own: Layout,
    targets: []const Target,
    input: *const Input,
    out_stride: usize,
) void {
    const most = comptime rowsAtOnce(t, own);
    var first: usize = 0;
    while (first < input.num_rows) {
        const count = matvec_span.evenPart(input.num_rows - first, most);
        switch (count) {
            inline 1...most => |M| multiplyRows(t, own, M, targets, input, first, out_stride),
            else => unreachable,
        }
        first += count;
    }
}

/// Activation rows that share one decoding of the weights; as many as the registers hold.
fn rowsAtOnce(comptime t: quant.Type, comptime own: Layout) usize {
    if (quant.Format(t).block_len == 1) {
        return if (own == .rows) float.max_rows_at_once else float_interleaved.max_rows_at_once;
    }
    return if (simd.native_lanes >= 8) 4 else 2;
}

noinline fn multiplyRows(
    comptime t: quant.Type,
    comptime own: Layout,
    comptime M: usize,
    targets: []const Target,
    input: *const Input,
    first: usize,
    out_stride: usize,
) void {
    const Q = quant.Format(t);
    const k = input.k;
    const group = comptime quant.group(t);
    const span = &targets[0].span;
    if (Q.block_len == 1) {
        var x: [M][*]align(64) const u8 = undefined;
        inline for (0..M) |m| {
            x[m] = @alignCast(input.laid + (first + m) * float.inputBytes(group, k));
        }
        if (own == .interleaved) return multiplyPanels(t, M, targets, k, &x, first, out_stride);
        if (comptime float.takesTwo(t, 0)) {
            const streams = targets.len * span.parts;
            if (streams == 2) return float.multiply(2, t, M, targets, k, &x, first, out_stride);
        }
        return float.multiply(4, t, M, targets, k, &x, first, out_stride);
    }
    const Row = if (group == 32) activation.BlockRow else activation.SuperRow;
    var rows: [M]Row = undefined;
    inline for (0..M) |m| {
        rows[m] = Row.at(@alignCast(input.laid + (first + m) * Row.bytes(k)), k);
    }
    if (own == .interleaved) return multiplyPanels(t, M, targets, k, &rows, first, out_stride);
    const kernel = if (group == 32) blocks else super;
    const out = targets[0].out + first * out_stride;
    kernel.multiply(Q, M, span.*, k, &rows, out, out_stride);
}

/// Products of panels with the M activation rows `input`, of which the step's `first` is one. Two
/// streams of panels at a time, or four where those are read faster.
fn multiplyPanels(
    comptime t: quant.Type,
    comptime M: usize,
    targets: []const Target,
    k: usize,
    input: anytype,
    first: usize,
    out_stride: usize,
) void {
    const span = &targets[0].span;
    const skipped = first * out_stride;
    const num_streams = targets.len * span.parts;
    if (comptime takesFour(t, M)) if (num_streams == 4) {
        return multiplyStreams(t, M, streamsFrom(4, t, targets, 0, k, skipped), span, k, input, out_stride);
    };
    var i: usize = 0;
    while (i < num_streams) : (i += 2) {
        multiplyStreams(t, M, streamsFrom(2, t, targets, i, k, skipped), span, k, input, out_stride);
    }
}

/// Whether `num_rows` activation rows meet four streams of panels at a time instead of two.
pub fn takesFour(t: quant.Type, num_rows: usize) bool {
    if (!quant.isFloat(t)) return interleaved.takesFour(t, num_rows);
    return num_rows == 1 and float_interleaved.takes_four;
}

/// The kernel of a type for panels of some streams, an array. A function for itself, as
/// `multiplyRows` is: all of them in one took twice as long to compile.
noinline fn multiplyStreams(
    comptime t: quant.Type,
    comptime M: usize,
    streams: anytype,
    span: *const Span,
    k: usize,
    input: anytype,
    out_stride: usize,
) void {
    const bytes = span.prefetch_bytes;
    if (comptime quant.isFloat(t)) {
        float_interleaved.multiply(t, M, streams, span.count, k, input, out_stride, bytes);
    } else {
        const Q = quant.Format(t);
        interleaved.multiply(Q, RowUnpacker(t), M, streams, span.count, k, input, out_stride, bytes);
    }
}

/// The same of all rows, which lie side by side.
fn multiplyBeside(
    comptime t: quant.Type,
    targets: []const Target,
    input: *const Input,
    out_stride: usize,
) void {
    const span = &targets[0].span;
    const row_bytes = float.inputBytes(comptime quant.group(t), input.k);
    var i: usize = 0;
    while (i < targets.len * span.parts) : (i += 2) {
        const streams = streamsFrom(2, t, targets, i, input.k, 0);
        const rows = input.num_rows;
        beside.multiply(t, streams, span.count, input.k, input.laid, row_bytes, rows, out_stride);
    }
}

/// `num` streams of the targets from number `i` on; their products go `skipped` further on.
fn streamsFrom(
    comptime num: usize,
    comptime t: quant.Type,
    targets: []const Target,
    i: usize,
    k: usize,
    skipped: usize,
) [num]interleaved.Stream {
    const row_bytes = quant.rowBytes(@intFromEnum(t), k);
    var streams: [num]interleaved.Stream = undefined;
    for (&streams, i..) |*stream, n| {
        const target, const part = matvec_span.streamOf(targets, n);
        const span = &target.span;
        stream.* = .{
            .start = span.weight + span.firstOf(part) * row_bytes,
            .out = target.out + skipped + part * span.count,
        };
    }
    return streams;
}
