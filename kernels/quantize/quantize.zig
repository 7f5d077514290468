//! The types that weights are quantised to, by GGUF number, and the walk over the rows of a matrix:
//! widening, refusing what a type cannot hold, and weighing the elements of each block.
const std = @import("std");
const simd = @import("../simd.zig");
const brain = @import("../brain.zig");
const quant = @import("../quant/quant.zig");
const codes_file = @import("codes.zig");
const float = @import("float.zig");

/// `Block`, `block_len`, `largest` (magnitude) and `quantize`; the floats have `round` instead.
/// null: nothing makes weights of the type.
fn Format(comptime t: quant.Type) ?type {
    const block32 = @import("block32.zig");
    const super_signed = @import("super_signed.zig");
    const super_affine = @import("super_affine.zig");
    const fp4 = @import("fp4.zig");
    const iq = @import("iq.zig");
    const ternary = @import("ternary.zig");
    return switch (t) {
        .f32 => float.F32,
        .f16 => float.F16,
        .bf16 => float.BF16,
        .q4_0 => block32.Q4_0,
        .q4_1 => block32.Q4_1,
        .q5_0 => block32.Q5_0,
        .q5_1 => block32.Q5_1,
        .q8_0 => block32.Q8_0,
        .iq4_nl => block32.Iq4Nl,
        .q2_k => super_affine.Q2_K,
        .q4_k => super_affine.Q4_K,
        .q5_k => super_affine.Q5_K,
        .q3_k => super_signed.Q3_K,
        .q6_k => super_signed.Q6_K,
        .iq4_xs => super_signed.Iq4Xs,
        .iq1_s => iq.Iq1S,
        .iq1_m => iq.Iq1M,
        .iq2_xxs => iq.Iq2Xxs,
        .iq2_xs => iq.Iq2Xs,
        .iq2_s => iq.Iq2S,
        .iq3_xxs => iq.Iq3Xxs,
        .iq3_s => iq.Iq3S,
        .tq1_0 => ternary.Tq1_0,
        .tq2_0 => ternary.Tq2_0,
        .mxfp4 => fp4.Mxfp4,
        .nvfp4 => fp4.Nvfp4,
        .q1_0, .q2_0, .f8_e4m3, .f8_e5m2 => null,
    };
}

/// A matrix to quantise; the rows lie one after the other on both sides.
pub const Job = extern struct {
    /// [rows, cols] of `source_type`: f32, f16 or bf16.
    source: u64,
    /// [cols] f32, how much a column's error counts, not negative; 0 = all alike.
    importance: u64,
    output: u64,
    cols: u64,
    source_type: u32,
    type_id: u32,
};

/// The first element that the type cannot hold.
pub const Fault = extern struct {
    row: u64 = std.math.maxInt(u64),
    column: u64 = 0,
    value: f32 = 0,
    /// The largest magnitude that the type takes.
    largest: f32 = 0,
};

/// Bytes of a quantised row, or 0 where nothing makes the type or the row is no whole number of
/// blocks.
pub fn rowBytes(type_id: u32, cols: u64) u64 {
    switch (quant.fromId(type_id) orelse return 0) {
        inline else => |t| {
            const format = Format(t) orelse return 0;
            if (cols % format.block_len != 0) return 0;
            return cols / format.block_len * @sizeOf(format.Block);
        },
    }
}

/// Quantises rows `first` … `first + count - 1`; false and `fault` at the first bad element.
/// `job` was checked: `rowBytes` is not 0, and the source is of a float type.
pub fn quantizeRows(job: *const Job, first: u64, count: u64, fault: *Fault) bool {
    const source: [*]const u8 = @ptrFromInt(job.source);
    switch (quant.fromId(job.source_type).?) {
        inline .f32, .f16, .bf16 => |from| switch (quant.fromId(job.type_id).?) {
            inline else => |to| {
                const format = Format(to) orelse unreachable;
                const Source = Format(from).?.Block;
                const row_bytes = rowBytes(job.type_id, job.cols);
                const output: [*]u8 = @ptrFromInt(job.output);
                for (first..first + count) |row| {
                    const in = source + row * job.cols * @sizeOf(Source);
                    const out = output + row * row_bytes;
                    const column = quantizeRow(Source, format, job, in, out, fault);
                    if (column == null) continue;
                    fault.row = row;
                    fault.column = column.?;
                    return false;
                }
                return true;
            },
        },
        else => unreachable,
    }
}

/// Elements that are widened at once.
const run_len = 256;

/// The column of the first bad element, if there is one.
fn quantizeRow(
    comptime Source: type,
    comptime format: type,
    job: *const Job,
    source: [*]const u8,
    output: [*]u8,
    fault: *Fault,
) ?u64 {
    const importance: ?[*]const f32 = @ptrFromInt(job.importance);
    var x: [run_len]f32 align(64) = undefined;
    var at: u64 = 0;
    while (at < job.cols) : (at += run_len) {
        const count: usize = @min(run_len, job.cols - at);
        widen(Source, source + at * @sizeOf(Source), x[0..count]);
        if (firstBad(x[0..count], format.largest)) |i| {
            fault.value = x[i];
            fault.largest = format.largest;
            return at + i;
        }
        const out = output + at / format.block_len * @sizeOf(format.Block);
        if (format.block_len == 1) {
            roundAll(format, x[0..count], out);
            continue;
        }
        const blocks: [*]format.Block = @ptrCast(out);
        for (0..count / format.block_len) |b| {
            const start = b * format.block_len;
            const own = x[start..][0..format.block_len];
            var w: [format.block_len]f32 align(64) = undefined;
            const column_weights = if (importance) |p| p[at + start ..][0..format.block_len] else null;
            weigh(format.block_len, own, column_weights, &w);
            format.quantize(own, &w, &blocks[b]);
        }
    }
    return null;
}

fn widen(comptime Source: type, source: [*]const u8, x: []f32) void {
    const elements: [*]align(1) const Source = @ptrCast(source);
    var i: usize = 0;
    while (i + 16 <= x.len) : (i += 16) {
        x[i..][0..16].* = widenSome(Source, 16, elements[i..][0..16].*);
    }
    while (i < x.len) : (i += 1) x[i] = widenSome(Source, 1, .{elements[i]})[0];
}
inline fn widenSome(comptime Source: type, comptime n: usize, v: [n]Source) @Vector(n, f32) {
    return switch (Source) {
        f32 => v,
        f16 => simd.widenHalves(n, v),
        u16 => brain.widen(n, v),
        else => unreachable,
    };
}

/// The first NaN, infinity, or magnitude above `largest`.
fn firstBad(x: []const f32, largest: f32) ?usize {
    var any: @Vector(16, u32) = @splat(0);
    var i: usize = 0;
    while (i + 16 <= x.len) : (i += 16) {
        const v: @Vector(16, f32) = x[i..][0..16].*;
        const good = @abs(v) <= @as(@Vector(16, f32), @splat(largest));
        any |= @select(u32, good, @as(@Vector(16, u32), @splat(0)), @as(@Vector(16, u32), @splat(1)));
    }
    if (i == x.len and @reduce(.Or, any) == 0) return null;
    for (x, 0..) |v, at| if (!(@abs(v) <= largest)) return at;
    return null;
}

fn roundAll(comptime format: type, x: []const f32, output: [*]u8) void {
    const elements: [*]align(1) format.Block = @ptrCast(output);
    var i: usize = 0;
    while (i + 16 <= x.len) : (i += 16) {
        const v: @Vector(16, f32) = x[i..][0..16].*;
        elements[i..][0..16].* = format.round(16, v);
    }
    while (i < x.len) : (i += 1) elements[i] = format.round(1, .{x[i]})[0];
}

/// How much each element's squared error counts: its column's importance, and more for large
/// elements, sqrt(2 * mean of squares + x^2): what they are multiplied with in a model is not
/// independent of them. The factor common to a block means nothing.
fn weigh(
    comptime n: usize,
    x: *const [n]f32,
    importance: ?*const [n]f32,
    w: *[n]f32,
) void {
    const amax = @abs(codes_file.extreme(x));
    // A power of two near 1 / amax, so that squares neither vanish nor overflow.
    const exponent = @as(u32, @bitCast(amax)) >> 23;
    const factor: f32 = @bitCast(@as(u32, 253 - @min(exponent, 252)) << 23);
    const V = @Vector(16, f32);
    const factors: V = @splat(factor);
    var squares: V = @splat(0);
    for (0..n / 16) |i| {
        const v = @as(V, x[i * 16 ..][0..16].*) * factors;
        squares += v * v;
    }
    const base: V = @splat(codes_file.sum(16, squares) * (2.0 / @as(f32, n)) + 0x1p-40);
    for (0..n / 16) |i| {
        const v = @as(V, x[i * 16 ..][0..16].*) * factors;
        const root: V = @sqrt(base + v * v);
        w[i * 16 ..][0..16].* = root;
    }
    const own = importance orelse return;
    const most = codes_file.Range.of(own).high;
    if (most == 0) return;
    // Columns that never mattered still count a little: something must decide their codes.
    for (w, own) |*weight, column| weight.* *= @max(column / most, 1e-6);
}
