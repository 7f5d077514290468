//! The arithmetic of attention_paged: a panel of a few rows (a row is a query and a head)
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

/// Most rows of a panel: up to here one panel reads each key and value once.
pub const max_rows = 8;
/// Rows of the panels that a larger tile is cut into: the best shape for the registers.
pub const preferred_rows = 6;
/// Rows of a panel as one vector.
const row_lanes = max_rows;
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
    return if (wanted >= 8) 8 else if (wanted >= 4) 4 else if (wanted >= 2) 2 else 1;
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

/// Brings scores that enter as x / softcap to softcap * tanh(x / softcap), in units of log 2.
pub const Softcap = struct {
    /// softcap * log2(e), or 0 for none.
    limit: f32,

    fn apply(softcap: Softcap, line: *[step_len]f32) void {
        const limit: Strands = @splat(softcap.limit);
        inline for (.{ 0, 16 }) |i| {
            line[i..][0..16].* = exp.tanh(16, line[i..][0..16].*) * limit;
        }
    }
};

/// Consecutive blocks of one kv head, element i belonging to block i.
pub const Blocks = struct {
    /// K and V parts, stored or widened.
    keys: []const [*]const u8,
    values: []const [*]const u8,
    /// Stored block to ask memory for meanwhile.
    ahead: []const [*]const u8,
};

/// One panel and the kernels that suit the storage types in use.
pub const Panel = struct {
    kernels: *const Kernels,
    num_rows: u32,
    head_dim: usize,
    /// Length of an accumulator row and of a V row.
    width: usize,
    /// From a stored block's K part to its V part.
    key_bytes: usize,
    softcap: Softcap,
    /// Scaled queries [head_dim][num_rows].
    queries: [*]const f32,
    rows: []RowState,
    /// [num_rows][width]
    accumulators: [*]align(64) f32,

    /// Attends to consecutive blocks, the first of which starts at `position`; `fresh` where they
    /// are the panel's first of the chunk: whatever the accumulators hold is then replaced.
    pub fn attend(
        panel: *const Panel,
        blocks: Blocks,
        position: u32,
        fresh: bool,
    ) void {
        var scores: Scores align(64) = undefined;
        var i: usize = 0;
        while (i < blocks.keys.len) {
            const joined: usize = if (i + 1 < blocks.keys.len) panel.kernels.joined else 1;
            const score = panel.kernels.scores[joined - 1][panel.num_rows - 1];
            const keys = blocks.keys.ptr + i;
            score(panel.head_dim, panel.queries, keys, blocks.ahead[i], &scores);
            for (0..joined) |j| {
                const start = position + @as(u32, @intCast(i + j)) * step_len;
                const next = blocks.ahead[i + j] + panel.key_bytes;
                const values = blocks.values[i + j];
                const is_first = fresh and i + j == 0;
                panel.attendStep(&scores, j * step_len, values, next, start, is_first);
            }
            i += joined;
        }
    }

    fn attendStep(
        panel: *const Panel,
        scores: *Scores,
        column: usize,
        values: [*]const u8,
        next: [*]const u8,
        start: u32,
        fresh: bool,
    ) void {
        const rows = panel.rows;
        // Rows are in the order of their queries, so the ends of the panel bound all of it.
        const edge = rows[rows.len - 1].first > start or rows[0].end < start + step_len;
        if (panel.softcap.limit != 0) for (scores[0..rows.len]) |*line| {
            panel.softcap.apply(line[column..][0..step_len]);
        };
        if (edge) for (rows, scores[0..rows.len]) |*row, *line| {
            hideScores(line[column..][0..step_len], start, row.first, row.end);
        };
        const step: ValuesStep = .{
            .scores = scores,
            .column = column,
            .factors = softmaxStep(scores, column, rows),
            .values = values,
            .next = next,
            .states = rows.ptr,
            .start = start,
            .fresh = fresh,
        };
        const index = panel.num_rows - 1;
        const kernel = if (edge) panel.kernels.edge_values[index] else panel.kernels.values[index];
        kernel(panel.width, &step, panel.accumulators);
    }
};

/// Replaces the scores of positions outside [first, end), whatever they were, NaN included.
fn hideScores(line: *[step_len]f32, start: u32, first: u32, end: u32) void {
    const Index = @Vector(step_len, u32);
    const position = std.simd.iota(u32, step_len) + @as(Index, @splat(start));
    const hidden: @Vector(step_len, f32) = @splat(-std.math.inf(f32));
    const early = @select(f32, position < @as(Index, @splat(first)), hidden, line.*);
    line.* = @select(f32, position < @as(Index, @splat(end)), early, hidden);
}

/// Turns the rows' scores of one step into probabilities relative to their running maxima, and
/// adds them to the strands. Returns what the accumulators are to be multiplied with. There are no
/// branches: where a maximum stays, its factor is exactly 1.
fn softmaxStep(scores: *Scores, column: usize, rows: []RowState) [row_lanes]f32 {
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
        merged.sum = fma(merged.sum, old, sum * new);
        var i: usize = 0;
        while (i < output.len) : (i += 16) {
            const part = @as(Strands, accumulator[i..][0..16].*) * @as(Strands, @splat(new));
            const before: Strands = output[i..][0..16].*;
            const both_parts = fma(before, @as(Strands, @splat(old)), part);
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

/// Of head dim, queries, K parts, what to prefetch, and where the scores go.
const ScoresKernel = *const fn (
    usize,
    [*]const f32,
    [*]const [*]const u8,
    [*]const u8,
    *Scores,
) void;
const ValuesKernel = *const fn (usize, *const ValuesStep, [*]align(64) f32) void;

/// What goes into the accumulators in one step.
const ValuesStep = struct {
    /// Probabilities, from `column` on.
    scores: *const Scores,
    column: usize,
    /// The accumulators are multiplied with these first, or cleared where `fresh`.
    factors: [row_lanes]f32,
    fresh: bool,
    /// The block's V part.
    values: [*]const u8,
    /// What will be read next.
    next: [*]const u8,
    states: [*]const RowState,
    /// Position of the block.
    start: u32,
};

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
fn ScoresOf(
    comptime kv_type: plan.KvType,
    comptime rows: comptime_int,
    comptime joined: comptime_int,
) type {
    return struct {
        const columns: comptime_int = @min(tileColumns(rows), joined * step_len / lanes);
        const group = columns * lanes;

        fn run(
            dims: usize,
            queries: [*]const f32,
            keys: [*]const [*]const u8,
            next: [*]const u8,
            scores: *Scores,
        ) void {
            comptime var start = 0;
            inline while (start < joined * step_len) : (start += group) {
                var sums: [rows][columns]Vec = @splat(@splat(@splat(0)));
                for (0..dims) |d| {
                    if (start == 0) prefetch(next, d * step_len, kv_type, step_len);
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
        fn run(width: usize, step: *const ValuesStep, accumulators: [*]align(64) f32) void {
            var from: usize = 0;
            comptime var columns = tileColumns(rows);
            inline while (columns >= 1) : (columns /= 2) {
                while (from + columns * lanes <= width) : (from += columns * lanes) {
                    tile(columns, width, step, from, accumulators + from);
                }
            }
        }

        inline fn tile(
            comptime columns: comptime_int,
            width: usize,
            step: *const ValuesStep,
            from: usize,
            accumulators: [*]f32,
        ) void {
            var sums: [rows][columns]Vec = @splat(@splat(@splat(0)));
            if (!step.fresh) inline for (&sums, 0..) |*row, r| inline for (row, 0..) |*sum, c| {
                const before: Vec = accumulators[r * width + c * lanes ..][0..lanes].*;
                sum.* = before * @as(Vec, @splat(step.factors[r]));
            };
            const first = if (edge) step.states[0].first -| step.start else 0;
            const last = &step.states[rows - 1];
            const end = if (edge) @min(step_len, last.end - step.start) else step_len;
            for (first..end) |i| {
                prefetch(step.next, i * width + from, kv_type, columns * lanes);
                var value: [columns]Vec = undefined;
                inline for (&value, 0..) |*vector, c| {
                    const index = i * width + from + c * lanes;
                    vector.* = kv_cache.load(kv_type, lanes, step.values, index);
                }
                inline for (&sums, 0..) |*row, r| {
                    const position = step.start + i;
                    const state = &step.states[r];
                    if (!edge or (position >= state.first and position < state.end)) {
                        const p: Vec = @splat(step.scores[r][step.column + i]);
                        inline for (row, value) |*sum, vector| sum.* = fma(vector, p, sum.*);
                    }
                }
            }
            inline for (sums, 0..) |row, r| inline for (row, 0..) |sum, c| {
                accumulators[r * width + c * lanes ..][0..lanes].* = sum;
            };
        }
    };
}

/// Asks for `count` stored elements from `index` on, one request to a cache line.
inline fn prefetch(
    part: [*]const u8,
    index: usize,
    comptime kv_type: plan.KvType,
    comptime count: comptime_int,
) void {
    if (kv_type == .f32) return; // widened, or long enough for the hardware's own prefetching
    comptime var offset = 0;
    inline while (offset < count * 2) : (offset += 64) {
        @prefetch(part + index * 2 + offset, .{ .rw = .read, .locality = 3, .cache = .data });
    }
}
