//! Many activation rows against F32, F16, BF16 and 8-bit float weights, with the same bits as
//! matvec_float.zig: the 16 strands of every output one after the other, neighbouring columns in
//! vector lanes. Sums of strands meet as soon as both are there.
const std = @import("std");
const assert = std.debug.assert;
const simd = @import("../simd.zig");
const plan = @import("../plan.zig");
const quant = @import("../quant/quant.zig");
const scales_file = @import("../quant/scales.zig");
const strands = @import("strands.zig");
const FlushDenormals = @import("../float_control.zig").FlushDenormals;
const interleave = @import("../interleave.zig");
const layout = @import("tile_layout.zig");
const Scales = scales_file.Scales;
const RowScales = scales_file.RowScales;
const columns = layout.columns;
const panel_rows = layout.panel_rows;

const lanes = simd.native_lanes;
const Lanes = @Vector(lanes, u32);
const Sums = @Vector(lanes, f32);

/// Register tile: activation rows x vectors of columns. Activations are broadcast.
const tile_rows = if (simd.has_fma) panel_rows else 2;
const tile_vectors = if (lanes == 4) 4 else 2;
const tile_columns = tile_vectors * lanes;
const num_tiles = columns / tile_columns;

/// Strands are taken in blocks whose weights, so many steps of 32 columns, stay in the second cache.
const block_steps = 2048;

const num_strands = interleave.num_strands;
/// Sums of 1, 2, 4 and 8 strands.
const num_levels = std.math.log2(num_strands);

/// Which strand is taken `rank`-th, or when a strand is: each follows the one 8 before it, such pairs
/// the one 4 before them, and so on, as `simd.sumHalving` adds.
fn rankOf(strand: usize) usize {
    return @bitReverse(@as(std.meta.Int(.unsigned, num_levels), @intCast(strand)));
}

/// Strands of a block.
fn blockStrands(num_steps: usize) usize {
    const most = std.math.clamp(block_steps / @max(num_steps, 1), 1, num_strands);
    return std.math.floorPowerOfTwo(usize, most);
}

/// Sums of 2^level strands of one panel that wait for those of as many others.
const Waiting = [num_levels][panel_rows][num_tiles][tile_vectors]Sums;

/// Private memory of one thread: weights, then the sums of a panel, or of all if there are blocks.
pub fn threadBytes(group: u32, rows: usize, k: usize) usize {
    const num_steps = strands.numSteps(group, k);
    const is_whole = blockStrands(num_steps) == num_strands;
    const num_panels = if (is_whole) 1 else layout.numPanels(rows);
    return Laid.numBytes(num_steps) + num_panels * @sizeOf(Waiting);
}

// ------------------------------------------------------------------------- activations

/// One packed panel: `[strands][steps][panel_rows]`, strands by rank.
pub fn panelBytes(group: u32, k: usize) usize {
    return strands.numSteps(group, k) * panel_rows * strands.step_bytes;
}
const PackedStep = [panel_rows]u32;

/// Packs a panel's activation rows `[k]`; rows that do not exist are zeros.
pub fn packRows(
    comptime group: u32,
    sources: []const [*]const f32,
    k: usize,
    panel: [*]align(64) u8,
) void {
    assert(sources.len <= panel_rows);
    const target: [*]PackedStep = @ptrCast(panel);
    const num_steps = strands.numSteps(group, k);
    const Row = strands.Activations(group);
    var step: usize = 0;
    while (step < num_steps) : (step += Row.steps) {
        // Two rows of zeros make two squares to transpose.
        var read: [panel_rows + 2]Row.Lanes = @splat(@splat(@splat(0)));
        for (read[0..sources.len], sources) |*row, source| {
            row.* = Row.read(@ptrCast(source), step / Row.steps * Row.elements, k, 1);
        }
        inline for (0..Row.steps) |s| inline for (0..num_strands / 4) |part| {
            var four: [2][4]@Vector(4, u32) = undefined;
            inline for (&four, 0..) |*half, h| inline for (half, 0..) |*row, i| {
                row.* = simd.part(u32, 4, read[4 * h + i][s], part * 4);
            };
            const first = simd.transpose(4, four[0]);
            const rest = simd.transpose(4, four[1]);
            inline for (first, rest, 0..) |a, b, i| {
                const packed_step = &target[rankOf(part * 4 + i) * num_steps + step + s];
                packed_step[0..4].* = a;
                packed_step[4..].* = simd.part(u32, panel_rows - 4, b, 0);
            }
        };
    }
}

// ------------------------------------------------------------------------- weights

/// Weights of 32 columns: `[strands][tiles][steps]` of a tile's columns, strands by rank.
const Laid = struct {
    start: [*]align(64) Step,
    num_steps: usize,

    const Step = [tile_vectors]Lanes;

    fn numBytes(num_steps: usize) usize {
        return num_steps * columns * strands.step_bytes;
    }

    inline fn stepsOf(laid: Laid, rank: usize, tile: usize) [*]align(64) Step {
        return laid.start + (rank * num_tiles + tile) * laid.num_steps;
    }

    inline fn put(laid: Laid, strand: usize, step: usize, column: usize, weights: Lanes) void {
        const steps = laid.stepsOf(rankOf(strand), column / tile_columns);
        steps[step][column % tile_columns / lanes] = weights;
    }
};

/// `n` weight rows of `k` elements.
fn Source(comptime Row: type) type {
    return struct {
        start: [*]const u8,
        layout: plan.Layout,
        scales: Scales,
        n: usize,
        k: usize,

        const Self = @This();
        const block_bytes = @sizeOf(Row.Format.Block);

        /// Columns past `n` repeat the last.
        fn lay(source: *const Self, laid: Laid) void {
            if (!Row.is_scaled and source.layout == .interleaved) return source.layPanels(laid);
            var first: usize = 0;
            while (first < columns) : (first += lanes) {
                var starts: [lanes][*]const u8 = undefined;
                var scales: [lanes]RowScales = undefined;
                for (&starts, &scales, first..) |*start, *scale, column| {
                    const row = @min(column, source.n - 1);
                    start.* = source.start + row * source.k * block_bytes;
                    scale.* = source.scales.ofRow(row);
                }
                var step: usize = 0;
                while (step < laid.num_steps) : (step += Row.steps) {
                    const at = step / Row.steps * Row.elements;
                    const block = if (Row.is_scaled) at / source.scales.block_cols else 0;
                    var read: [lanes]Row.Lanes = undefined;
                    inline for (&read, starts, scales) |*row, start, own| {
                        const scale = if (Row.is_scaled) own.values[block] else 1;
                        row.* = Row.read(start, at, source.k, scale);
                    }
                    inline for (0..Row.steps) |s| inline for (0..num_strands / lanes) |part| {
                        var of_rows: [lanes]Lanes = undefined;
                        inline for (&of_rows, read) |*row, own| {
                            row.* = simd.part(u32, lanes, own[s], part * lanes);
                        }
                        inline for (simd.transpose(lanes, of_rows), 0..) |weights, i| {
                            laid.put(part * lanes + i, step + s, first, weights);
                        }
                    };
                }
            }
        }

        /// Of whole panels, which have whole steps.
        fn layPanels(source: *const Self, laid: Laid) void {
            const Units = interleave.Units(Row.Format);
            const panel_bytes = interleave.panel_rows * source.k * block_bytes;
            const last = source.n / interleave.panel_rows - 1;
            for (0..columns / interleave.panel_rows) |p| {
                var block = source.start + @min(p, last) * panel_bytes;
                var step: usize = 0;
                while (step < laid.num_steps) : (step += Units.num_steps * Row.steps) {
                    layBlock(block, laid, step, p * interleave.panel_rows);
                    block += interleave.panel_rows * Units.size;
                }
            }
        }

        /// One block of a panel's rows, whose first step is `first`, to the columns from `column` on.
        inline fn layBlock(block: [*]const u8, laid: Laid, first: usize, column: usize) void {
            const Units = interleave.Units(Row.Format);
            const unit_bytes = Units.most_bytes;
            for (0..num_strands) |strand| for (0..Units.num_steps) |i| {
                const unit = block + Units.places[(i * num_strands + strand) * unit_bytes];
                inline for (0..interleave.panel_rows / lanes) |part| {
                    const read = Row.units(lanes, unit + part * lanes * unit_bytes);
                    inline for (read, 0..) |weights, s| {
                        const step = first + i * Row.steps + s;
                        laid.put(strand, step, column + part * lanes, weights);
                    }
                }
            };
        }
    };
}

// ------------------------------------------------------------------------- products

/// out `[panels * 6][32]` = packed activations · weight rows n0..n0+n; columns past n and rows
/// past `rows` are unspecified.
pub fn computePanel(
    weight: *const plan.Weight,
    n0: usize,
    n: usize,
    rows: usize,
    packed_memory: [*]align(64) const u8,
    scratch: []align(64) u8,
    out: [*]align(64) f32,
) void {
    assert(n >= 1 and n <= columns);
    const k = weight.cols;
    const num_panels = layout.numPanels(rows);
    const address: [*]const u8 = @ptrFromInt(weight.address);
    const scales = Scales.of(weight).from(n0);
    switch (quant.fromId(weight.type).?) {
        inline .f32, .f16, .bf16, .f8_e4m3, .f8_e5m2 => |t| {
            const Row = strands.Weights(t);
            const mode: ?FlushDenormals = if (t == .bf16) .begin() else null;
            defer if (mode) |previous| previous.end();
            const source: Source(Row) = .{
                .start = address + n0 * k * @sizeOf(Row.Format.Block),
                .layout = weight.layout,
                .scales = scales,
                .n = n,
                .k = k,
            };
            const num_steps = strands.numSteps(Row.group, k);
            const laid: Laid = .{ .start = @ptrCast(scratch.ptr), .num_steps = num_steps };
            source.lay(laid);
            const waiting: [*]Waiting = @ptrCast(@alignCast(scratch.ptr + Laid.numBytes(num_steps)));
            const activations: [*]const PackedStep = @ptrCast(packed_memory);
            computeColumns(Row, laid, num_panels, activations, waiting, @ptrCast(out));
        },
        else => unreachable,
    }
}

/// Block after block, panel after panel, strand after strand: of each, all tiles.
fn computeColumns(
    comptime Row: type,
    laid: Laid,
    num_panels: usize,
    activations: [*]const PackedStep,
    waiting: [*]Waiting,
    out: [*]OutRow,
) void {
    const num_steps = laid.num_steps;
    const panel_steps = num_strands * num_steps;
    const block_strands = blockStrands(num_steps);
    const is_whole = block_strands == num_strands;
    var first: usize = 0;
    while (first < num_strands) : (first += block_strands) for (0..num_panels) |panel| {
        const own = &waiting[if (is_whole) 0 else panel];
        for (first..first + block_strands) |rank| {
            const x = activations + panel * panel_steps + rank * num_steps;
            // After a block's last strand come those of the next panel.
            const is_last = rank + 1 == first + block_strands;
            const next = x + if (is_last) panel_steps - (block_strands - 1) * num_steps else num_steps;
            for (0..num_tiles) |tile| {
                const weights = laid.stepsOf(rank, tile)[0..num_steps];
                var row: usize = 0;
                while (row < panel_rows) : (row += tile_rows) {
                    const turn = (tile * panel_rows + row) / tile_rows;
                    const lines = @as([*]const u8, @ptrCast(next)) + turn * lineBytes(num_steps);
                    const sums = sumSteps(Row, weights, @ptrCast(&x[0][row]), lines);
                    const target = out[panel * panel_rows + row ..][0..tile_rows];
                    addStrand(rank, &sums, own, row, tile, target);
                }
            }
        }
    };
}

const OutRow = [num_tiles][tile_vectors]Sums;
const Tile = [tile_rows][tile_vectors]Sums;

/// Tiles of a panel that meet the same activations, and after how many steps each asks for one more
/// line of those that are taken next.
const num_turns = num_tiles * panel_rows / tile_rows;
const line_steps = std.math.floorPowerOfTwo(usize, num_turns * 64 / @sizeOf(PackedStep));
fn lineBytes(num_steps: usize) usize {
    return (num_steps + line_steps - 1) / line_steps * 64;
}

/// One strand of a register tile.
inline fn sumSteps(
    comptime Row: type,
    weights: []const Laid.Step,
    x: [*]const PackedStep,
    lines: [*]const u8,
) Tile {
    var sums: Tile = @splat(@splat(@splat(0)));
    for (weights, 0..) |w, step| {
        if (step % line_steps == 0) simd.prefetch(lines + step / line_steps * 64);
        inline for (&sums, 0..) |*own, m| {
            const v: Lanes = @splat(x[step][m]);
            inline for (own, w) |*sum, some| sum.* = Row.multiplyAdd(lanes, sum.*, some, v);
        }
    }
    return sums;
}

/// Adds the `rank`-th strand to those that wait for it; the sum waits, too, or is all of them.
inline fn addStrand(
    rank: usize,
    strand: *const Tile,
    waiting: *Waiting,
    row: usize,
    tile: usize,
    out: *[tile_rows]OutRow,
) void {
    var sums = strand.*;
    const level = @ctz(~rank);
    for (waiting[0..level]) |*others| {
        inline for (&sums, others[row..][0..tile_rows]) |*own, other| {
            inline for (own, other[tile]) |*sum, half| sum.* = half + sum.*;
        }
    }
    const target = if (level < num_levels) waiting[level][row..][0..tile_rows] else out;
    inline for (target, sums) |*own, sum| own[tile] = sum;
}
