//! How the rows regime cuts a matrix into units: short slices, so that threads end together. A
//! thread takes as many neighbours at once as is fair (worker.zig), so that streams are long.
const std = @import("std");
const plan = @import("../plan.zig");
const quant = @import("../quant/quant.zig");
const float = @import("matvec_float.zig");
const matvec = @import("matvec.zig");
pub const panel_rows = @import("../interleave.zig").panel_rows;
const Tuning = @import("../tuning.zig").Tuning;

/// Rows of a quarter in the longest slice, which bounds the buffer of its results.
pub const max_quarter_rows = 256;
/// Fewer are mostly the unit's own start and end.
const least_quarter_rows = 4;

/// Rows `first..first + count` of every part of a matrix, `parts` of `height` rows, the last one
/// maybe of fewer; `together` with those of a second matrix, which is then read at the same time.
pub const Slice = struct {
    first: usize,
    count: usize,
    parts: usize,
    height: usize,
    together: bool,
};

/// How a unit reads its weights.
pub const Reading = enum {
    once,
    /// Four activation rows share one decoding; more of them pass over the slice again, from the cache.
    again,
    /// Two panels at a time for all activations (matvec_float_beside.zig).
    in_pairs,

    pub fn of(input_rows: usize) Reading {
        return if (input_rows > 4) .again else .once;
    }
};

pub const Slices = struct {
    /// Parts of a matrix, which are read at the same time.
    parts: usize,
    together: bool,
    /// Rows of a part.
    height: usize,
    /// Rows of one unit in each part.
    size: usize,
    /// What `size` is a multiple of.
    step: usize,
    /// Units taken at once.
    most: u32,

    /// For units that multiply activations with rows of matrices of equal height, one of each of
    /// `sets`, whose rows are `row_bytes` together.
    pub fn of(
        tuning: *const Tuning,
        sets: []const []const plan.Weight,
        reading: Reading,
        row_bytes: usize,
    ) Slices {
        const shortest = tuning.stream_bytes / row_bytes;
        const wanted = std.math.clamp(shortest, least_quarter_rows, max_quarter_rows);
        const how_many = interleavedIn(sets);
        const step: usize = if (how_many == .none) 1 else panel_rows;
        const streams: usize = if (takeTwo(sets, how_many == .all, reading)) 2 else 4;
        // Kernels of blocks in rows take one matrix, and scales of one may differ from the other's.
        const can_pair = switch (how_many) {
            .none => isPlainFloat(sets),
            .some => false,
            .all => true,
        };
        const together = can_pair and isPair(sets);
        const parts = if (together) streams / 2 else streams;
        const least = if (reading == .in_pairs) 2 * step else step;
        const size = std.mem.alignForward(usize, @max(wanted, least), step);
        const longest = if (reading == .again) tuning.cached_stream_bytes / row_bytes else max_quarter_rows;
        return .{
            .parts = parts,
            .together = together,
            .height = if (how_many == .none) apart(sets, parts) else sets[0][0].rows / parts,
            .size = size,
            .step = step,
            .most = @intCast(std.math.clamp(longest, size, max_quarter_rows) / size),
        };
    }

    /// Rows of a part, one more than needed where parts would begin at addresses that the first
    /// cache takes for the same.
    fn apart(sets: []const []const plan.Weight, parts: usize) usize {
        const height = (sets[0][0].rows + parts - 1) / parts;
        for (sets) |weights| {
            const row_bytes = quant.rowBytes(weights[0].type, weights[0].cols);
            if (looksTheSame(height * row_bytes)) return height + 1;
        }
        return height;
    }

    /// Whether addresses so far apart meet in a set of Zen's first cache and have the same hash
    /// there: of such lines it finds only the last one (Lipp et al., "Take A Way", 2020). IQ2_XXS,
    /// quarters 0x108000 bytes apart: 8.0 ns a block instead of 5.6. Other distances of whole pages
    /// cost nothing.
    fn looksTheSame(distance: usize) bool {
        if (distance == 0 or distance % 4096 != 0) return false;
        const page = distance / 4096;
        for (0..8) |i| {
            const other = if (i < 3) 15 - i else i + 5;
            if ((page >> @intCast(i) ^ page >> @intCast(other)) & 1 != 0) return false;
        }
        return true;
    }

    fn interleavedIn(sets: []const []const plan.Weight) enum { none, some, all } {
        var is_any = false;
        var is_all = true;
        for (sets) |weights| for (weights) |*weight| {
            if (weight.layout == .interleaved) is_any = true else is_all = false;
        };
        return if (is_all) .all else if (is_any) .some else .none;
    }

    /// Whether each matrix has another of its type to be read with: gate and up, whose streams then
    /// go on from unit to unit (F16, fast turns of Zen 4: 89 -> 95 % of the reads).
    fn isPair(sets: []const []const plan.Weight) bool {
        if (sets.len < 2) return false;
        for (sets[0], sets[1]) |a, b| if (a.type != b.type) return false;
        return true;
    }

    /// Whether the kernels of all these weights read two streams rather than four.
    fn takeTwo(sets: []const []const plan.Weight, are_interleaved: bool, reading: Reading) bool {
        for (sets) |weights| for (weights) |*weight| {
            const t = quant.fromId(weight.type).?;
            const takes_four = if (are_interleaved)
                matvec.takesFour(t, 1) and reading != .in_pairs
            else
                !float.takesTwo(t, weight.cols);
            if (takes_four) return false;
        };
        return true;
    }

    fn isPlainFloat(sets: []const []const plan.Weight) bool {
        for (sets) |weights| for (weights) |*weight| {
            const known = quant.fromId(weight.type).?;
            if (!quant.isFloat(known) or quant.isScaled(known)) return false;
        };
        return true;
    }

    /// Makes no slice longer than `longest`, which is `panel_rows` at least.
    pub fn limit(slices: *Slices, longest: usize) void {
        slices.size = @min(slices.size, longest / slices.step * slices.step);
        slices.most = @min(slices.most, @as(u32, @intCast(longest / slices.size)));
    }

    pub fn count(slices: Slices) usize {
        return (slices.height + slices.size - 1) / slices.size;
    }

    /// Units first..end; those past the matrix are not there.
    pub fn at(slices: Slices, first: usize, end: usize) Slice {
        const row = first * slices.size;
        return .{
            .first = row,
            .count = @min(end * slices.size, slices.height) - row,
            .parts = slices.parts,
            .height = slices.height,
            .together = slices.together,
        };
    }
};

test "parts hold every row once, at distances that the first cache tells apart" {
    const Span = @import("matvec_span.zig").Span;
    for ([_]u32{ 1, 7, 1000, 8189, 8192 }) |num_rows| {
        var weight = std.mem.zeroes(plan.Weight);
        weight.type = @intFromEnum(quant.Type.iq2_xxs);
        weight.address = 64;
        weight.scales = plan.none;
        weight.rows = num_rows;
        weight.cols = 2048;
        const slices: Slices = .of(&.{}, &.{&.{weight}}, .once, quant.rowBytes(weight.type, 2048));
        try std.testing.expectEqual(num_rows > 8188, slices.height == (num_rows + 3) / 4 + 1);
        var sum: usize = 0;
        for (0..slices.count()) |unit| {
            const span: Span = .of(&weight, slices.at(unit, unit + 1), 0);
            for (0..slices.parts) |part| sum += span.countIn(part);
        }
        try std.testing.expectEqual(num_rows, sum);
    }
}
