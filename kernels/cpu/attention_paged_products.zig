//! The inner loops of attention_paged: scores of a panel's rows against the K parts of blocks, and
//! sums of V rows weighted by the rows' probabilities, each in the form that the KV type decides.
const std = @import("std");
const builtin = @import("builtin");
const plan = @import("../plan.zig");
const simd = @import("../simd.zig");
const brain = @import("../brain.zig");
const kv_cache = @import("kv_cache.zig");

/// Most rows of a panel: up to here one panel reads each key and value once.
pub const max_rows = 8;
pub const block_size = kv_cache.block_size;
const pairs_per_block = block_size / 2;
/// Blocks whose scores are taken in one pass over the dims: more columns hide latency where there
/// are few rows.
pub const max_joined = 2;
/// Blocks that a panel takes together, at most.
pub const max_blocks = 4;

const lanes = simd.native_lanes;
const Vec = @Vector(lanes, f32);
const Words = @Vector(lanes, i32);

/// Scores, then probabilities, of a panel's rows.
pub const Scores = [max_rows][max_blocks * block_size]f32;

/// What the kernels read, and with it the precision of the products.
pub const Form = enum {
    /// Exact products of f32.
    f32,
    f16,
    /// Pairs of bf16, times queries or probabilities rounded to bf16.
    pairs,
    /// Pairs of integers in bf16, with an f32 scale for every 32 dims.
    scaled,

    pub fn of(kv_type: plan.KvType) Form {
        return switch (kv_type) {
            .f32 => .f32,
            .f16 => .f16,
            .bf16 => .pairs,
            .q8_0, .q4_0 => .scaled,
        };
    }

    /// Whether queries and probabilities are rounded to bf16.
    pub fn rounds(form: Form) bool {
        return form == .pairs or form == .scaled;
    }
};

/// The positions that a row sees: [first, end).
pub const Visible = struct { first: u32, end: u32 };

/// What the kernels read of one block of one kv head.
pub const Block = struct {
    keys: [*]const u8,
    values: [*]const u8,
    /// f16 scales `[groups][32]`, of the scaled form only.
    key_scales: [*]const u8,
    value_scales: [*]const u8,
    /// Stored K and V part to ask memory for meanwhile, or null.
    next_keys: ?[*]const u8,
    next_values: ?[*]const u8,
};

/// Of head dim, queries, consecutive blocks, and the column where the first block's scores go.
const ScoresKernel = *const fn (usize, [*]const f32, [*]const Block, *Scores, usize) void;
/// Of value width, the step, and accumulators `[rows][width]`.
const ValuesKernel = *const fn (usize, *const ValuesStep, [*]align(64) f32) void;

/// What goes into the accumulators: V of consecutive blocks.
pub const ValuesStep = struct {
    blocks: []const Block,
    probabilities: *const Scores,
    /// The accumulators are multiplied with these before each block.
    factors: [max_blocks][max_rows]f32,
    /// The accumulators start from 0.
    fresh: bool,
    visible: [*]const Visible,
    /// Position of the first block.
    start: u32,
};

/// The kernels for one pair of forms, by number of rows - 1.
pub const Kernels = struct {
    scores: [max_joined][max_rows]ScoresKernel,
    values: [max_rows]ValuesKernel,
    edge_values: [max_rows]ValuesKernel,

    pub fn of(keys: Form, values: Form) Kernels {
        var kernels: Kernels = undefined;
        switch (keys) {
            inline else => |form| inline for (0..max_rows) |i| {
                inline for (0..max_joined) |j| {
                    kernels.scores[j][i] = ScoresOf(form, i + 1, j + 1).run;
                }
            },
        }
        switch (values) {
            inline else => |form| inline for (0..max_rows) |i| {
                kernels.values[i] = ValuesOf(form, i + 1, false).run;
                kernels.edge_values[i] = ValuesOf(form, i + 1, true).run;
            },
        }
        return kernels;
    }
};

/// Vectors to a row in the register tile of `rows` rows: accumulators fill most registers. Where a
/// fused product takes some thirty instructions, two sums keep the CPU busy.
fn tileColumns(comptime rows: comptime_int) comptime_int {
    if (!simd.has_fma) return if (rows == 1) 2 else 1;
    const wanted = (simd.num_registers - 4) / rows;
    return if (wanted >= 8) 8 else if (wanted >= 4) 4 else if (wanted >= 2) 2 else 1;
}

/// One number of each row times pairs of bf16: how rounded queries and probabilities are kept.
/// `Operand` is a pair where the CPU multiplies pairs, else each half as f32.
const Operand = if (brain.has_dot) i32 else f32;
const per_pair: comptime_int = if (brain.has_dot) 1 else 2;

/// sum + first * first of `pair`, + second * second: `operands` are those of the pair.
inline fn addPair(sum: Vec, pair: Words, first: Operand, second: Operand) Vec {
    if (brain.has_dot) return brain.dot(sum, pair, @splat(first));
    const high: Vec = @bitCast(pair & @as(Words, @splat(@bitCast(@as(u32, 0xffff0000)))));
    const low: Vec = @bitCast(pair << @splat(16));
    const upper = brain.fma(Vec, high, @splat(first), sum);
    return brain.fma(Vec, low, @splat(second), upper);
}

/// Rounds 32 values to bf16, as the operands of 16 pairs.
inline fn pack(first: simd.Floats, second: simd.Floats) [16 * per_pair]Operand {
    if (brain.has_dot) return brain.pairs(first, second);
    return brain.widen(32, brain.round(32, simd.join(f32, 16, first, second)));
}

/// Rounds a query and writes its operands, `stride` apart. The query is read in whole groups of 32
/// dims; what lies past `dims` does not matter.
pub fn packQuery(query: [*]const f32, dims: usize, output: [*]f32, stride: usize) void {
    const operands: [*]Operand = @ptrCast(output);
    var d: usize = 0;
    while (d < dims) : (d += 32) {
        const packed_group = pack(query[d..][0..16].*, query[d + 16 ..][0..16].*);
        const from = d / 2 * per_pair;
        const count = @min(dims - d, 32) / 2 * per_pair;
        for (packed_group[0..count], from..) |operand, i| operands[i * stride] = operand;
    }
}

/// Bytes of a stored value, at most.
fn storedBytes(comptime form: Form) comptime_int {
    return switch (form) {
        .f32 => 4,
        .f16, .pairs => 2,
        .scaled => 1,
    };
}

inline fn askAhead(next: ?[*]const u8, offset: usize, comptime bytes: usize) void {
    const start = next orelse return;
    inline for (0..(bytes + 63) / 64) |line| simd.prefetch(start + offset + line * 64);
}

/// scores[r][i] = queries[r] · key i, for the positions of `joined` blocks.
fn ScoresOf(comptime form: Form, comptime rows: comptime_int, comptime joined: comptime_int) type {
    return struct {
        const sets = if (form == .scaled) 2 else 1;
        const stored_bytes = storedBytes(form);
        /// Of one position's number, or pair of numbers, as the kernels read them.
        const key_bytes = if (form == .f16) 2 else 4;
        const columns: comptime_int = @min(tileColumns(rows * sets), joined * block_size / lanes);
        const group = columns * lanes;
        const Sums = [rows][columns]Vec;
        /// Where the columns of a group lie, in each of the blocks that it reaches over.
        const Places = [@max(1, group / block_size)]Place;
        const Place = struct { keys: [*]const u8, scales: [*]const u8 };

        fn run(
            dims: usize,
            queries: [*]const f32,
            blocks: [*]const Block,
            scores: *Scores,
            column: usize,
        ) void {
            @setEvalBranchQuota(100_000);
            var start: usize = 0;
            while (start < joined * block_size) : (start += group) {
                var places: Places = undefined;
                for (&places, blocks[start / block_size ..]) |*place, *block| {
                    const first = start % block_size;
                    place.* = .{
                        .keys = block.keys + first * key_bytes,
                        .scales = block.key_scales + first * @sizeOf(f16),
                    };
                }
                const next = if (start == 0) blocks[0].next_keys else null;
                const sums = switch (form) {
                    .f32, .f16 => exact(dims, queries, places, next),
                    .pairs => pairs(0, dims / 2, queries, places, next),
                    .scaled => scaled(dims, queries, places, next),
                };
                inline for (sums, 0..) |row, r| inline for (row, 0..) |sum, c| {
                    scores[r][column + start + c * lanes ..][0..lanes].* = sum;
                };
            }
        }

        inline fn exact(
            dims: usize,
            queries: [*]const f32,
            places: Places,
            next: ?[*]const u8,
        ) Sums {
            const kv_type = @field(plan.KvType, @tagName(form));
            var sums: Sums = @splat(@splat(@splat(0)));
            for (0..dims) |d| {
                const row_bytes = block_size * stored_bytes;
                askAhead(next, d * row_bytes, row_bytes);
                var key: [columns]Vec = undefined;
                inline for (&key, 0..) |*vector, c| {
                    const place = places[c * lanes / block_size];
                    const index = d * block_size + c * lanes % block_size;
                    vector.* = kv_cache.load(kv_type, lanes, place.keys, index);
                }
                inline for (&sums, 0..) |*row, r| {
                    const q = queries[d * rows + r];
                    inline for (row, key) |*sum, vector| {
                        sum.* = simd.fmaBy(Vec, vector, q, sum.*);
                    }
                }
            }
            return sums;
        }

        /// Over the pairs of dims [first, end).
        inline fn pairs(
            first: usize,
            end: usize,
            queries: [*]const f32,
            places: Places,
            next: ?[*]const u8,
        ) Sums {
            @setEvalBranchQuota(100_000);
            const operands: [*]const Operand = @ptrCast(queries);
            var sums: Sums = @splat(@splat(@splat(0)));
            for (first..end) |p| {
                const row_bytes = block_size * 2 * stored_bytes;
                askAhead(next, p * row_bytes, row_bytes);
                var key: [columns]Words = undefined;
                inline for (&key, 0..) |*vector, c| {
                    const place = places[c * lanes / block_size];
                    const index = p * block_size + c * lanes % block_size;
                    vector.* = simd.load(Words, place.keys + index * key_bytes);
                }
                inline for (&sums, 0..) |*row, r| {
                    const q = operands + p * per_pair * rows + r;
                    inline for (row, key) |*sum, vector| {
                        sum.* = addPair(sum.*, vector, q[0], q[(per_pair - 1) * rows]);
                    }
                }
            }
            return sums;
        }

        /// Group by group of 32 dims: score = fma(sum of the group, its scale, score), from 0.
        inline fn scaled(
            dims: usize,
            queries: [*]const f32,
            places: Places,
            next: ?[*]const u8,
        ) Sums {
            var totals: Sums = @splat(@splat(@splat(0)));
            var first: usize = 0;
            while (first < dims) : (first += kv_cache.quant_group) {
                const end = @min(first + kv_cache.quant_group, dims);
                const sums = pairs(first / 2, end / 2, queries, places, next);
                inline for (0..columns) |c| {
                    const place = places[c * lanes / block_size];
                    const index = first + c * lanes % block_size;
                    const scale = kv_cache.load(.f16, lanes, place.scales, index);
                    inline for (&totals, sums) |*row, part| {
                        row[c] = simd.fma(Vec, part[c], scale, row[c]);
                    }
                }
            }
            return totals;
        }
    };
}

/// accumulators[r] += probabilities[r] · V, over the positions of the step's blocks. `edge` leaves
/// out the positions that a row does not see, whatever lies there.
fn ValuesOf(comptime form: Form, comptime rows: comptime_int, comptime edge: bool) type {
    return struct {
        const stored_bytes = storedBytes(form);

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
                sum.* = accumulators[r * width + c * lanes ..][0..lanes].*;
            };
            for (step.blocks, step.factors[0..step.blocks.len], 0..) |*block, factors, b| {
                inline for (&sums, factors[0..rows]) |*row, factor| inline for (row) |*sum| {
                    sum.* *= @as(Vec, @splat(factor));
                };
                switch (form) {
                    .f32, .f16 => exact(columns, width, step, block, b, from, &sums),
                    .pairs, .scaled => pairs(columns, width, step, block, b, from, &sums),
                }
            }
            inline for (sums, 0..) |row, r| inline for (row, 0..) |sum, c| {
                accumulators[r * width + c * lanes ..][0..lanes].* = sum;
            };
        }

        inline fn exact(
            comptime columns: comptime_int,
            width: usize,
            step: *const ValuesStep,
            block: *const Block,
            b: usize,
            from: usize,
            sums: *[rows][columns]Vec,
        ) void {
            const kv_type = @field(plan.KvType, @tagName(form));
            const start = step.start + b * block_size;
            const first = if (edge) @min(block_size, step.visible[0].first -| start) else 0;
            const last = step.visible[rows - 1].end -| start;
            const end = if (edge) @min(block_size, last) else block_size;
            for (first..end) |i| {
                const index = i * width + from;
                const row_bytes = columns * lanes * stored_bytes;
                askAhead(block.next_values, index * stored_bytes, row_bytes);
                var value: [columns]Vec = undefined;
                inline for (&value, 0..) |*vector, c| {
                    vector.* = kv_cache.load(kv_type, lanes, block.values, index + c * lanes);
                }
                inline for (sums, 0..) |*row, r| {
                    if (!edge or sees(step.visible[r], start + i)) {
                        const p = step.probabilities[r][b * block_size + i];
                        inline for (row, value) |*sum, vector| {
                            sum.* = simd.fmaBy(Vec, vector, p, sum.*);
                        }
                    }
                }
            }
        }

        inline fn pairs(
            comptime columns: comptime_int,
            width: usize,
            step: *const ValuesStep,
            block: *const Block,
            b: usize,
            from: usize,
            sums: *[rows][columns]Vec,
        ) void {
            // Scales differ from one group of dims to the next, and with them V's weights.
            const dims_per_set = if (form == .scaled) kv_cache.quant_group else columns * lanes;
            const sets = @max(1, columns * lanes / dims_per_set);
            var weights: [sets]Weights align(64) = undefined;
            inline for (&weights, 0..) |*set, s| {
                packWeights(step, block, b, from + s * dims_per_set, set);
            }
            for (0..pairs_per_block) |p| {
                const position = step.start + @as(u32, @intCast(b * block_size + 2 * p));
                if (edge and !seesAny(step, position)) continue;
                const index = (p * width + from) * 4;
                const row_bytes = columns * lanes * 2 * stored_bytes;
                askAhead(block.next_values, index / 4 * 2 * stored_bytes, row_bytes);
                var value: [columns]Words = undefined;
                inline for (&value, 0..) |*vector, c| {
                    vector.* = simd.load(Words, block.values + index + c * lanes * 4);
                }
                const whole = !edge or seesAll(step, position);
                inline for (sums, 0..) |*row, r| {
                    const mask = if (whole) all_seen else pairMask(step.visible[r], position);
                    if (mask != 0) inline for (row, value, 0..) |*sum, v, c| {
                        const w = weights[c * lanes / dims_per_set][r][p * per_pair ..];
                        const seen = if (edge) v & @as(Words, @splat(@bitCast(mask))) else v;
                        sum.* = addPair(sum.*, seen, w[0], w[per_pair - 1]);
                    };
                }
            }
        }

        /// What the positions of one block are weighted by, as operands.
        const Weights = [rows][pairs_per_block * per_pair]Operand;

        /// The block's probabilities, times the scales of the group of dims at `from`.
        inline fn packWeights(
            step: *const ValuesStep,
            block: *const Block,
            b: usize,
            from: usize,
            weights: *Weights,
        ) void {
            const scales = from / kv_cache.quant_group * block_size;
            inline for (weights, 0..) |*row, r| {
                var p: [2]simd.Floats = undefined;
                inline for (&p, 0..) |*values, half| {
                    const from_half = half * 16;
                    values.* = step.probabilities[r][b * block_size + from_half ..][0..16].*;
                    if (form == .scaled) {
                        const index = scales + from_half;
                        const scale = kv_cache.load(.f16, 16, block.value_scales, index);
                        const zero: simd.Floats = @splat(0);
                        // What is not seen weighs nothing, whatever its scale.
                        values.* = @select(f32, values.* == zero, zero, values.* * scale);
                    }
                }
                row.* = pack(p[0], p[1]);
            }
        }

        inline fn seesAny(step: *const ValuesStep, position: u32) bool {
            return position + 1 >= step.visible[0].first and position < step.visible[rows - 1].end;
        }

        inline fn seesAll(step: *const ValuesStep, position: u32) bool {
            return position >= step.visible[rows - 1].first and position + 1 < step.visible[0].end;
        }
    };
}

inline fn sees(visible: Visible, position: usize) bool {
    return position >= visible.first and position < visible.end;
}

const all_seen: u32 = 0xffff_ffff;

/// The halves of the pair at `position` that are seen.
inline fn pairMask(visible: Visible, position: u32) u32 {
    const first: u32 = if (sees(visible, position)) 0xffff0000 else 0;
    const second: u32 = if (sees(visible, position + 1)) 0xffff else 0;
    return first | second;
}
