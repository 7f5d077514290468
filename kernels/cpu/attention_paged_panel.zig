//! The arithmetic of attention_paged: a panel of up to six rows (a row is a query and a head)
//! against blocks of 32 positions. Decode and prefill both come through here, so their bits agree:
//!
//!   score[i] = fma over dims in order of (scaled q[d], k[d][i]), from 0
//!   per step of 32 positions: the maximum; if it grew, sum and accumulators times 2^(old - new);
//!     p = 2^(score - maximum), added to 16 strands; acc[d] = fma over positions of (v[i][d], p[i])
//!   per chunk of 512 positions at fixed places: a partial (maximum, sum, acc)
//!   partials are merged in the order of their chunks, sinks first.
//!
//! Positions that a row must not see never enter: their scores are replaced, their V rows skipped.
const std = @import("std");
const builtin = @import("builtin");
const plan = @import("../plan.zig");
const exp = @import("exp.zig");
const kv_cache = @import("kv_cache.zig");
const fma = exp.fma;

pub const max_rows = 6;
pub const step_len = kv_cache.block_size;
pub const chunk_len = 512;
/// Blocks whose scores may be taken together.
const max_joined = 2;
/// A score below every real one; the maximum of nothing.
pub const lowest: f32 = -1e30;

/// The widest vector registers: f32 lanes in each, and how many there are.
const registers: struct { lanes: comptime_int, count: comptime_int } = switch (builtin.cpu.arch) {
    .x86_64 => if (std.Target.x86.featureSetHas(builtin.cpu.features, .avx512f))
        .{ .lanes = 16, .count = 32 }
    else if (std.Target.x86.featureSetHas(builtin.cpu.features, .avx))
        .{ .lanes = 8, .count = 16 }
    else
        .{ .lanes = 4, .count = 16 },
    else => .{ .lanes = 4, .count = 32 },
};
const lanes = registers.lanes;
const Vec = @Vector(lanes, f32);
/// Strands of a row's sum, on every CPU.
pub const Strands = @Vector(16, f32);

/// Vectors to a row in the register tile of `rows` rows: accumulators fill most registers.
fn tileColumns(comptime rows: comptime_int) comptime_int {
    const wanted = (registers.count - 4) / rows;
    return if (wanted >= 8) 8 else if (wanted >= 4) 4 else 2;
}

/// Softmax state of one row inside one chunk.
pub const RowState = struct {
    strands: Strands,
    maximum: f32,
    /// Positions [first, end) are visible to the row.
    first: u32,
    end: u32,

    pub fn reset(row: *RowState) void {
        row.maximum = lowest;
        row.strands = @splat(0);
    }
};

/// Scores of a panel's rows, two blocks wide.
const Scores = [max_rows][max_joined * step_len]f32;

/// Scores that leave the kernel are in units of log 2.
pub const Softcap = struct {
    /// softcap * log2(e), or 0 for none; scores then enter as x / softcap.
    limit: f32,

    inline fn apply(softcap: Softcap, x: Strands) Strands {
        if (softcap.limit == 0) return x;
        return exp.tanh(16, x) * @as(Strands, @splat(softcap.limit));
    }
};

/// One panel and the kernels that suit the storage types in use.
pub const Panel = struct {
    kernels: *const Kernels,
    num_rows: u32,
    head_dim: usize,
    /// Length of an accumulator row and of a V row.
    width: usize,
    softcap: Softcap,
    /// Scaled queries [head_dim][num_rows].
    queries: [*]const f32,
    rows: []RowState,
    /// [num_rows][width]
    accumulators: [*]align(64) f32,

    /// Attends to consecutive blocks, the first of which starts at `position`.
    pub fn attend(panel: *const Panel, keys: []const [*]const u8, values: []const [*]const u8, position: u32) void {
        var scores: Scores align(64) = undefined;
        var i: usize = 0;
        while (i < keys.len) {
            const joined: usize = if (i + 1 < keys.len) panel.kernels.joined else 1;
            const index = panel.num_rows - 1;
            panel.kernels.scores[joined - 1][index](panel.head_dim, panel.queries, keys.ptr + i, &scores);
            for (0..joined) |j| {
                const start: u32 = position + @as(u32, @intCast(i + j)) * step_len;
                panel.attendStep(&scores, j * step_len, values[i + j], start);
            }
            i += joined;
        }
    }

    fn attendStep(panel: *const Panel, scores: *Scores, column: usize, values: [*]const u8, start: u32) void {
        const rows = panel.rows;
        // Rows are in the order of their queries, so the ends of the panel bound all of it.
        const edge = rows[rows.len - 1].first > start or rows[0].end < start + step_len;
        for (rows, 0..) |*row, r| {
            const accumulator = panel.accumulators + r * panel.width;
            const line: *align(64) [step_len]f32 = @alignCast(scores[r][column..][0..step_len]);
            if (edge) hideScores(line, start, row.first, row.end);
            softmaxStep(line, row, panel.softcap, edge, @alignCast(accumulator[0..panel.width]));
        }
        const index = panel.num_rows - 1;
        const kernel = if (edge) panel.kernels.edge_values[index] else panel.kernels.values[index];
        kernel(panel.width, scores, column, values, panel.accumulators, rows.ptr, start);
    }
};

const score_marker: f32 = -std.math.inf(f32);

/// Replaces the scores of positions outside [first, end); whatever they were, NaN included.
fn hideScores(line: *align(64) [step_len]f32, start: u32, first: u32, end: u32) void {
    const Index = @Vector(step_len, u32);
    const position = std.simd.iota(u32, step_len) + @as(Index, @splat(start));
    const seen = @as(Index, @intFromBool(position >= @as(Index, @splat(first)))) &
        @as(Index, @intFromBool(position < @as(Index, @splat(end))));
    const hidden: @Vector(step_len, f32) = @splat(score_marker);
    line.* = @select(f32, seen != @as(Index, @splat(0)), @as(@Vector(step_len, f32), line.*), hidden);
}

/// Turns a row's scores of one step into probabilities relative to the row's running maximum.
fn softmaxStep(
    line: *align(64) [step_len]f32,
    row: *RowState,
    softcap: Softcap,
    edge: bool,
    accumulator: []align(64) f32,
) void {
    var low: Strands = line[0..16].*;
    var high: Strands = line[16..32].*;
    if (softcap.limit != 0) {
        // Hidden scores stay hidden: the cap would lift them.
        const hidden: Strands = @splat(score_marker);
        const capped = .{ softcap.apply(low), softcap.apply(high) };
        low = if (edge) @select(f32, low == hidden, hidden, capped[0]) else capped[0];
        high = if (edge) @select(f32, high == hidden, hidden, capped[1]) else capped[1];
    }
    const maximum = largest(exp.larger(low, high));
    if (maximum > row.maximum) {
        const factor = exp.exp2OfNegative(1, .{row.maximum - maximum})[0];
        row.maximum = maximum;
        row.strands *= @splat(factor);
        var i: usize = 0;
        while (i < accumulator.len) : (i += 16) {
            const part: Strands = accumulator[i..][0..16].*;
            accumulator[i..][0..16].* = part * @as(Strands, @splat(factor));
        }
    }
    const base: Strands = @splat(row.maximum);
    const first = exp.exp2OfNegative(16, low - base);
    const second = exp.exp2OfNegative(16, high - base);
    row.strands += first;
    row.strands += second;
    line[0..16].* = first;
    line[16..32].* = second;
}

inline fn half(comptime n: comptime_int, v: @Vector(n, f32), comptime from: i32) @Vector(n / 2, f32) {
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
        if (maximum == lowest) return; // the row saw nothing of this chunk
        const both = if (maximum > merged.maximum) maximum else merged.maximum;
        const old = exp.exp2OfNegative(1, .{merged.maximum - both})[0];
        const new = exp.exp2OfNegative(1, .{maximum - both})[0];
        merged.maximum = both;
        merged.sum = fma(merged.sum, old, sum * new);
        var i: usize = 0;
        while (i < output.len) : (i += 16) {
            const before = @as(Strands, output[i..][0..16].*) * @as(Strands, @splat(old));
            const part: Strands = accumulator[i..][0..16].*;
            output[i..][0..16].* = fma(part, @as(Strands, @splat(new)), before);
        }
    }

    /// Divides by the sum: the row's attention output, `[value_dim]`.
    pub fn finish(merged: *const Merged, output: []align(64) const f32, row: []f32) void {
        const sum: f32 = merged.sum;
        for (row, output[0..row.len]) |*value, part| value.* = part / sum;
    }
};

const ScoresKernel = *const fn (usize, [*]const f32, [*]const [*]const u8, *Scores) void;
const ValuesKernel = *const fn (
    usize,
    *const Scores,
    usize,
    [*]const u8,
    [*]align(64) f32,
    [*]const RowState,
    u32,
) void;

/// The kernels for one pair of storage types, by number of rows - 1.
pub const Kernels = struct {
    /// Blocks to score together: more columns hide latency where there are few rows.
    joined: usize,
    scores: [max_joined][max_rows]ScoresKernel,
    values: [max_rows]ValuesKernel,
    edge_values: [max_rows]ValuesKernel,

    /// Kernels that read f32, f16 or bf16 in place; quantised blocks are widened to f32 first.
    pub fn of(type_k: plan.KvType, type_v: plan.KvType) Kernels {
        var kernels: Kernels = undefined;
        kernels.joined = max_joined;
        switch (type_k) {
            inline .f32, .f16, .bf16 => |kv_type| inline for (0..max_rows) |i| {
                inline for (0..max_joined) |j| {
                    kernels.scores[j][i] = ScoresOf(kv_type, i + 1, j + 1).run;
                }
            },
            .q8_0, .q4_0 => unreachable,
        }
        switch (type_v) {
            inline .f32, .f16, .bf16 => |kv_type| inline for (0..max_rows) |i| {
                kernels.values[i] = ValuesOf(kv_type, i + 1, false).run;
                kernels.edge_values[i] = ValuesOf(kv_type, i + 1, true).run;
            },
            .q8_0, .q4_0 => unreachable,
        }
        return kernels;
    }
};

/// scores[r][i] = queries[r] · key i, for the positions of `joined` blocks.
fn ScoresOf(comptime kv_type: plan.KvType, comptime rows: comptime_int, comptime joined: comptime_int) type {
    return struct {
        const columns: comptime_int = @min(tileColumns(rows), joined * step_len / lanes);
        const group = columns * lanes;

        fn run(dims: usize, queries: [*]const f32, keys: [*]const [*]const u8, scores: *Scores) void {
            comptime var start = 0;
            inline while (start < joined * step_len) : (start += group) {
                var sums: [rows][columns]Vec = @splat(@splat(@splat(0)));
                for (0..dims) |d| {
                    var key: [columns]Vec = undefined;
                    inline for (&key, 0..) |*vector, c| {
                        const position = start + c * lanes;
                        const index = d * step_len + position % step_len;
                        vector.* = kv_cache.load(kv_type, lanes, keys[position / step_len], index);
                    }
                    inline for (&sums, 0..) |*row, r| {
                        const q: Vec = @splat(queries[d * rows + r]);
                        inline for (row, key) |*sum, vector| sum.* = fma(vector, q, sum.*);
                    }
                }
                inline for (sums, 0..) |row, r| inline for (row, 0..) |sum, c| {
                    scores[r][start + c * lanes ..][0..lanes].* = sum;
                };
            }
        }
    };
}

/// accumulators[r] += probabilities[r] · V, over the 32 positions of one block. `edge` leaves out
/// the positions that a row does not see.
fn ValuesOf(comptime kv_type: plan.KvType, comptime rows: comptime_int, comptime edge: bool) type {
    return struct {
        fn run(
            width: usize,
            scores: *const Scores,
            column: usize,
            values: [*]const u8,
            accumulators: [*]align(64) f32,
            states: [*]const RowState,
            start: u32,
        ) void {
            var from: usize = 0;
            comptime var columns = tileColumns(rows);
            inline while (columns >= 1) : (columns /= 2) {
                while (from + columns * lanes <= width) : (from += columns * lanes) {
                    tile(columns, width, scores, column, values, accumulators, states, start, from);
                }
            }
        }

        inline fn tile(
            comptime columns: comptime_int,
            width: usize,
            scores: *const Scores,
            column: usize,
            values: [*]const u8,
            accumulators: [*]align(64) f32,
            states: [*]const RowState,
            start: u32,
            from: usize,
        ) void {
            var sums: [rows][columns]Vec = undefined;
            inline for (&sums, 0..) |*row, r| inline for (row, 0..) |*sum, c| {
                sum.* = accumulators[r * width + from + c * lanes ..][0..lanes].*;
            };
            const first = if (edge) states[0].first -| start else 0;
            const end = if (edge) @min(step_len, states[rows - 1].end - start) else step_len;
            for (first..end) |i| {
                var value: [columns]Vec = undefined;
                inline for (&value, 0..) |*vector, c| {
                    vector.* = kv_cache.load(kv_type, lanes, values, i * width + from + c * lanes);
                }
                inline for (&sums, 0..) |*row, r| {
                    const position = start + i;
                    const seen = !edge or (position >= states[r].first and position < states[r].end);
                    if (seen) {
                        const p: Vec = @splat(scores[r][column + i]);
                        inline for (row, value) |*sum, vector| sum.* = fma(vector, p, sum.*);
                    }
                }
            }
            inline for (sums, 0..) |row, r| inline for (row, 0..) |sum, c| {
                accumulators[r * width + from + c * lanes ..][0..lanes].* = sum;
            };
        }
    };
}
