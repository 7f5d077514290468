//! The softmax of attention_paged: a panel of a few rows (a row is a query and a head) against
//! blocks of 32 positions. Decode and prefill both come through here, so their bits agree:
//!
//!   score[i] = fma over dims in order of (q[d] * scale, k[d][i]), from 0
//!   per step of 32 positions: the maximum; if it grew, sum and accumulators times 2^(old - new);
//!     p = 2^(score - maximum), added to 16 strands; acc[d] = fma over positions of (v[i][d], p[i])
//!   per chunk of 512 positions at fixed places: a partial (maximum, sum, acc)
//!   partials are merged in the order of their chunks, sinks first.
//!
//! The KV type decides the precision of the products. f32 and f16: as above. bf16: q * scale, and p
//! as it enters acc, are rounded to bf16. q8_0 and q4_0: k and v are the stored integers; the
//! products of each 32 dims are summed from 0 and enter score = fma(their sum, their scale, score),
//! and what is rounded to bf16 is p * the scale of v.
//! Products of bf16 may take f32 below 2^-126 as zero, which no result above 2^-101 notices.
//!
//! Positions that a row must not see never enter: their scores are replaced, their V rows skipped.
const std = @import("std");
const exp = @import("exp.zig");
const simd = @import("../simd.zig");
const products = @import("attention_paged_products.zig");
const Visible = products.Visible;

pub const max_rows = products.max_rows;
/// Rows of the panels that a larger tile is cut into: the best shape for the registers.
pub const preferred_rows = 6;
/// Rows of a panel as one vector.
const row_lanes = max_rows;
const block_size = products.block_size;
pub const chunk_len = 512;
/// A score below every real one; the maximum of nothing.
pub const lowest: f32 = -1e30;

/// Strands of a row's sum, on every CPU.
pub const Strands = @Vector(16, f32);

/// Softmax state of one row inside one chunk.
pub const RowState = struct {
    strands: Strands,
    maximum: f32,

    pub fn reset(row: *RowState) void {
        row.maximum = lowest;
        row.strands = @splat(0);
    }
};

/// Brings scores that enter as x / softcap to softcap * tanh(x / softcap), in units of log 2.
pub const Softcap = struct {
    /// softcap * log2(e), or 0 for none.
    limit: f32,

    fn apply(softcap: Softcap, line: *[block_size]f32) void {
        const limit: Strands = @splat(softcap.limit);
        inline for (.{ 0, 16 }) |i| {
            line[i..][0..16].* = exp.tanh(16, line[i..][0..16].*) * limit;
        }
    }
};

/// One panel and the kernels that suit the forms of keys and values in use.
pub const Panel = struct {
    kernels: *const products.Kernels,
    num_rows: u32,
    head_dim: usize,
    /// Length of an accumulator row and of a V row.
    width: usize,
    softcap: Softcap,
    /// Scaled queries `[head_dim][num_rows]`; where they are rounded, as the kernels want them.
    queries: [*]const f32,
    rows: []RowState,
    visible: []const Visible,
    /// [num_rows][width]
    accumulators: [*]align(64) f32,

    /// Attends to consecutive blocks from block `first` of the sequence on, all K parts before all
    /// V parts; no bit depends on how many they are. `fresh` where they are the panel's first of
    /// the chunk: whatever the accumulators hold is then replaced.
    pub fn attend(
        panel: *const Panel,
        blocks: []const products.Block,
        first: u32,
        fresh: bool,
    ) void {
        const start = first * block_size;
        var scores: products.Scores align(64) = undefined;
        const index = panel.num_rows - 1;
        var i: usize = 0;
        while (i < blocks.len) {
            const joined: usize = if (i + 1 < blocks.len) products.max_joined else 1;
            const score = panel.kernels.scores[joined - 1][index];
            score(panel.head_dim, panel.queries, blocks.ptr + i, &scores, i * block_size);
            i += joined;
        }
        const visible = panel.visible;
        // Rows are in the order of their queries, so the ends of the panel bound all of it.
        const edge = visible[visible.len - 1].first > start or
            visible[0].end < start + blocks.len * block_size;
        var step: products.ValuesStep = .{
            .probabilities = &scores,
            .factors = undefined,
            .fresh = fresh,
            .blocks = blocks,
            .visible = visible.ptr,
            .start = start,
        };
        for (step.factors[0..blocks.len], 0..) |*factors, b| {
            const column = b * block_size;
            for (visible, scores[0..visible.len]) |seen, *row| {
                const line = row[column..][0..block_size];
                if (panel.softcap.limit != 0) panel.softcap.apply(line);
                if (edge) hideScores(line, start + @as(u32, @intCast(column)), seen);
            }
            factors.* = softmaxStep(&scores, column, panel.rows);
        }
        const kernel = if (edge) panel.kernels.edge_values[index] else panel.kernels.values[index];
        kernel(panel.width, &step, panel.accumulators);
    }
};

/// Replaces the scores of positions that are not seen, whatever they were, NaN included.
fn hideScores(line: *[block_size]f32, start: u32, seen: Visible) void {
    const Index = @Vector(block_size, u32);
    const position = std.simd.iota(u32, block_size) + @as(Index, @splat(start));
    const hidden: @Vector(block_size, f32) = @splat(-std.math.inf(f32));
    const early = @select(f32, position < @as(Index, @splat(seen.first)), hidden, line.*);
    line.* = @select(f32, position < @as(Index, @splat(seen.end)), early, hidden);
}

/// Turns the rows' scores of one step into probabilities relative to their running maxima, and
/// adds them to the strands. Returns what the accumulators are to be multiplied with. There are no
/// branches: where a maximum stays, its factor is exactly 1.
fn softmaxStep(scores: *products.Scores, column: usize, rows: []RowState) [row_lanes]f32 {
    var old: [row_lanes]f32 = @splat(0);
    var new: [row_lanes]f32 = @splat(0);
    for (rows, scores[0..rows.len], 0..) |*row, *line, r| {
        const largest_score = largest(exp.larger(
            @as(Strands, line[column..][0..16].*),
            @as(Strands, line[column + 16 ..][0..16].*),
        ));
        old[r] = row.maximum;
        new[r] = if (largest_score > row.maximum) largest_score else row.maximum;
        row.maximum = new[r];
    }
    const change = @as(@Vector(row_lanes, f32), old) - @as(@Vector(row_lanes, f32), new);
    const factors: [row_lanes]f32 = exp.exp2OfNegative(row_lanes, change);
    for (rows, scores[0..rows.len], factors[0..rows.len]) |*row, *line, factor| {
        const base: Strands = @splat(row.maximum);
        const first = exp.exp2OfNegative(16, @as(Strands, line[column..][0..16].*) - base);
        const second = exp.exp2OfNegative(16, @as(Strands, line[column + 16 ..][0..16].*) - base);
        row.strands = (row.strands * @as(Strands, @splat(factor)) + first) + second;
        line[column..][0..16].* = first;
        line[column + 16 ..][0..16].* = second;
    }
    return factors;
}

inline fn half(
    comptime n: comptime_int,
    v: @Vector(n, f32),
    comptime from: i32,
) @Vector(n / 2, f32) {
    const offset: @Vector(n / 2, i32) = @splat(from);
    return @shuffle(f32, v, undefined, std.simd.iota(i32, n / 2) + offset);
}

inline fn largest(v: Strands) f32 {
    const a = exp.larger(half(16, v, 0), half(16, v, 8));
    const b = exp.larger(half(8, a, 0), half(8, a, 4));
    const c = exp.larger(half(4, b, 0), half(4, b, 2));
    return if (c[0] > c[1]) c[0] else c[1];
}

/// Sum of the strands by halving.
pub inline fn total(v: Strands) f32 {
    const a = half(16, v, 0) + half(16, v, 8);
    const b = half(8, a, 0) + half(8, a, 4);
    const c = half(4, b, 0) + half(4, b, 2);
    return c[0] + c[1];
}

/// Running result of one row over the chunks merged so far; `output` is [width].
pub const Merged = struct {
    maximum: f32,
    sum: f32,
    /// No chunk yet: `output` holds nothing of worth.
    empty: bool = true,

    /// Nothing but the sink, an extra logit that has no value.
    pub fn start(sink: ?f32) Merged {
        const logit = sink orelse return .{ .maximum = lowest, .sum = 0 };
        return .{ .maximum = logit * @as(f32, std.math.log2e), .sum = 1 };
    }

    pub fn add(
        merged: *Merged,
        maximum: f32,
        sum: f32,
        accumulator: []align(64) const f32,
        output: []align(64) f32,
    ) void {
        // A row that saw nothing of this chunk has nothing in its accumulator either.
        if (maximum == lowest) return;
        const both = if (maximum > merged.maximum) maximum else merged.maximum;
        const old = exp.exp2OfNegative(1, .{merged.maximum - both})[0];
        const new = exp.exp2OfNegative(1, .{maximum - both})[0];
        merged.maximum = both;
        merged.sum = simd.fma(f32, merged.sum, old, sum * new);
        var i: usize = 0;
        while (i < output.len) : (i += 16) {
            const part = @as(Strands, accumulator[i..][0..16].*) * @as(Strands, @splat(new));
            const before: Strands = output[i..][0..16].*;
            const both_parts = simd.fma(Strands, before, @as(Strands, @splat(old)), part);
            output[i..][0..16].* = if (merged.empty) part else both_parts;
        }
        merged.empty = false;
    }

    /// Divides by the sum: the row's attention output, `[value_dim]`.
    pub fn finish(merged: *const Merged, output: []align(64) const f32, row: []f32) void {
        // Only scores that are not numbers leave a row without any chunk.
        const sum = if (merged.empty) std.math.nan(f32) else merged.sum;
        for (row, output[0..row.len]) |*value, part| value.* = part / sum;
    }
};
