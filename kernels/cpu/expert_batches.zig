//! Which activation rows each expert computes in one step: (token, slot) pairs sorted by expert.
//! Every thread sorts for itself, which is cheaper than waiting for another.
const std = @import("std");
const tile_gemm = @import("tile_gemm.zig");

/// Sizes of one op that do not change from step to step, with its largest step.
pub const Limits = struct {
    max_rows: usize,
    num_slots: usize,
    num_experts: usize,

    pub fn maxPairs(limits: Limits) usize {
        return limits.max_rows * limits.num_slots;
    }
    /// Most panels that hold the rows of every expert, each one's last partly filled.
    pub fn maxPanels(limits: Limits) usize {
        const pairs = limits.maxPairs();
        const padding = (tile_gemm.panel_rows - 1) * @min(limits.num_experts, pairs);
        return (pairs + padding) / tile_gemm.panel_rows;
    }
};

/// Pair p is slot p % num_slots of token p / num_slots.
pub const Batches = struct {
    /// Experts in use: those with most rows first, equal ones by number.
    experts: []u32,
    /// The pairs of experts[i] are pairs[starts[i]..starts[i + 1]], in order.
    starts: []u32,
    pairs: []u32,
    /// The first of `experts`: those with more rows than the rows regime takes.
    num_tiled: usize,
    /// The rows of a tiled experts[i] are panels panel_starts[i]..panel_starts[i + 1].
    panel_starts: []u32,

    pub fn bytes(limits: Limits) usize {
        const words = limits.maxPairs() + 4 * limits.num_experts + 2;
        return std.mem.alignForward(usize, words * @sizeOf(u32), 64);
    }

    /// Sorts the pairs of `rows` tokens by their `routing` `[rows, 2 * num_slots]`, or, without
    /// one, slot s to expert s. Experts of up to `rows_regime` rows take the rows regime.
    pub fn make(
        memory: [*]align(64) u8,
        limits: Limits,
        routing: ?[*]const f32,
        rows: usize,
        rows_regime: usize,
    ) Batches {
        const words: [*]u32 = @ptrCast(memory);
        const count = limits.num_experts;
        // Rows of each expert; then where its next pair goes.
        const next = words[0..count];
        @memset(next, 0);
        for (0..rows) |t| {
            for (0..limits.num_slots) |slot| next[expertOf(routing, limits, t, slot)] += 1;
        }
        const experts = sortUsed(next, words[count .. 2 * count]);
        const starts = words[2 * count ..][0 .. experts.len + 1];
        const panel_starts = words[3 * count + 1 ..];
        starts[0] = 0;
        panel_starts[0] = 0;
        var num_tiled: usize = 0;
        for (experts, 0..) |expert, i| {
            const own: u32 = next[expert];
            starts[i + 1] = starts[i] + own;
            next[expert] = starts[i];
            if (own <= rows_regime) continue;
            num_tiled = i + 1;
            panel_starts[i + 1] = panel_starts[i] + @as(u32, @intCast(tile_gemm.numPanels(own)));
        }
        const pairs = words[4 * count + 2 ..][0 .. rows * limits.num_slots];
        for (0..rows) |t| {
            for (0..limits.num_slots) |slot| {
                const place = &next[expertOf(routing, limits, t, slot)];
                pairs[place.*] = @intCast(t * limits.num_slots + slot);
                place.* += 1;
            }
        }
        return .{
            .experts = experts,
            .starts = starts,
            .pairs = pairs,
            .num_tiled = num_tiled,
            .panel_starts = panel_starts[0 .. num_tiled + 1],
        };
    }

    pub fn isTiled(batches: *const Batches, i: usize) bool {
        return i < batches.num_tiled;
    }
    pub fn pairsOf(batches: *const Batches, i: usize) []const u32 {
        return batches.pairs[batches.starts[i]..batches.starts[i + 1]];
    }
    /// All pairs of experts in the rows regime.
    pub fn fewPairs(batches: *const Batches) []const u32 {
        return batches.pairs[batches.starts[batches.num_tiled]..];
    }
    /// The first row of experts[i] among all few pairs.
    pub fn firstFew(batches: *const Batches, i: usize) usize {
        return batches.starts[i] - batches.starts[batches.num_tiled];
    }
    pub fn numPanels(batches: *const Batches) usize {
        return batches.panel_starts[batches.num_tiled];
    }
};

fn expertOf(routing: ?[*]const f32, limits: Limits, token: usize, slot: usize) usize {
    const ids = routing orelse return slot;
    return @intFromFloat(ids[2 * token * limits.num_slots + slot]);
}

/// Writes the experts that have rows to `sorted`, most rows first.
fn sortUsed(rows: []const u32, sorted: []u32) []u32 {
    var used: usize = 0;
    for (rows, 0..) |own, expert| {
        if (own == 0) continue;
        var at = used;
        while (at > 0 and rows[sorted[at - 1]] < own) : (at -= 1) sorted[at] = sorted[at - 1];
        sorted[at] = @intCast(expert);
        used += 1;
    }
    return sorted[0..used];
}
