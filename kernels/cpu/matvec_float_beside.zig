//! Several activation rows against float weights whose rows lie interleaved, with the bits of
//! matvec_float.zig: where each weight meets so many that multiplying takes longer than reading.
//! Activations lie side by side, so that a strand of all rows is summed over a chunk of K in
//! registers, and what it reads are neighbours: at distances of whole rows they would have few sets
//! of the first cache. A weight is asked for twice: a chunk ahead into the second cache, in the order
//! of memory, and a strand ahead into the first one, in the order of use.
const std = @import("std");
const simd = @import("../simd.zig");
const quant = @import("../quant/quant.zig");
const interleave = @import("../interleave.zig");
const strands = @import("strands.zig");
const FlushDenormals = @import("../float_control.zig").FlushDenormals;
const Tuning = @import("../tuning.zig").Tuning;
const Stream = @import("matvec_interleaved.zig").Stream;
const evenPart = @import("matvec_span.zig").evenPart;
const panel_rows = interleave.panel_rows;
const num_strands = interleave.num_strands;
const lanes = simd.native_lanes;
const Sums = @Vector(lanes, f32);

/// Vectors of weight rows in a register tile: those of two panels, or of one or half of one.
const num_vectors = if (lanes == 16 or simd.num_registers == 16) 2 else panel_rows / lanes;
/// Their sums take three quarters of the registers.
pub const max_rows_at_once = simd.num_registers * 3 / 4 / num_vectors;

/// Rows of the smallest part.
const least_rows = 3;

/// The part that row `row` of `count` rows is in.
pub const Place = struct {
    /// First row of the part.
    first: usize,
    /// Rows of the part.
    size: usize,

    pub fn of(row: usize, count: usize) Place {
        var first: usize = 0;
        while (true) {
            const size = evenPart(count - first, max_rows_at_once);
            if (row < first + size) return .{ .first = first, .size = size };
            first += size;
        }
    }
};

/// Elements of each row that all activations meet before the next ones: 16 KiB of a panel of F16 or
/// BF16. So many of two panels, and of those that take their places, stay in a second-level cache.
const chunk_elements = 512;

/// Steps of a chunk.
fn chunkSteps(comptime group: u32) usize {
    const Row = strands.Activations(group);
    return chunk_elements / Row.elements * Row.steps;
}

/// Lays x `[k]` out as row `row` of its part in `memory`: `[chunks][strands][steps][rows]` of lanes.
/// What is read together lies together: strands of the whole of K may be whole pages apart.
pub fn layInput(comptime group: u32, x: []const f32, row: usize, size: usize, memory: [*]u32) void {
    const Row = strands.Activations(group);
    const num_steps = strands.numSteps(group, x.len);
    const source: [*]const u8 = @ptrCast(x.ptr);
    const most = comptime chunkSteps(group);
    var step: usize = 0;
    while (step < num_steps) : (step += Row.steps) {
        const read = Row.read(source, step / Row.steps * Row.elements, x.len, 1);
        for (read, step..) |values, at| {
            const own: [num_strands]u32 = values;
            const first = at / most * most;
            const count = @min(most, num_steps - first);
            const target = memory + (first * num_strands + at - first) * size + row;
            for (own, 0..) |value, strand| target[strand * count * size] = value;
        }
    }
}

/// Products of `count` weight rows of each stream, whole panels, with `num_rows` activation rows laid
/// out at `x`, whose parts are `row_bytes` a row apart.
pub fn multiply(
    comptime t: quant.Type,
    streams: [2]Stream,
    count: usize,
    k: usize,
    x: [*]align(64) const u8,
    row_bytes: usize,
    num_rows: usize,
    out_stride: usize,
) void {
    const Kernel = Tile(t);
    const mode: ?FlushDenormals = if (t == .bf16) .begin() else null;
    defer if (mode) |previous| previous.end();
    const each = num_vectors * lanes;
    const panel_bytes = panel_rows * k * @sizeOf(Kernel.Row.Format.Block);
    var tile: Kernel = .{
        .num_blocks = panel_bytes / Kernel.block_bytes,
        .bytes_ahead = @max(panel_rows, @min(count, each)) / panel_rows * panel_bytes,
    };
    // The panels of both streams one after another: neighbours are read faster than streams whose
    // distance is a power of two (Zen 4: 8 rows 16 and 24 GB/s).
    var r: usize = 0;
    while (r < 2 * count) : (r += each) {
        inline for (0..num_vectors) |v| {
            const at = r + v * lanes;
            const stream = streams[at / count];
            tile.sources[v] = stream.start + at % count / panel_rows * panel_bytes +
                at % panel_rows * Kernel.Units.most_bytes;
            tile.outputs[v] = stream.out + at % count;
        }
        tile.first_block = 0;
        while (tile.first_block < tile.num_blocks) : (tile.first_block += Kernel.chunk_blocks) {
            var first: usize = 0;
            while (first < num_rows) {
                const size = evenPart(num_rows - first, max_rows_at_once);
                const part: [*]const u32 = @ptrCast(@alignCast(x + first * row_bytes));
                switch (size) {
                    inline least_rows...max_rows_at_once => |M| tile.multiply(M, part, first, out_stride),
                    else => unreachable,
                }
                first += size;
            }
        }
    }
}

/// `num_vectors` vectors of weight rows.
fn Tile(comptime t: quant.Type) type {
    return struct {
        /// Of a panel.
        num_blocks: usize,
        /// Where the chunk begins.
        first_block: usize = 0,
        /// From a panel to the one that takes its place.
        bytes_ahead: usize,
        sources: [num_vectors][*]const u8 = undefined,
        outputs: [num_vectors][*]f32 = undefined,
        /// Of each row the strands of all vectors.
        sums: [Tuning.max_rows_regime][num_strands][num_vectors]Sums = undefined,

        const Self = @This();
        const Row = strands.Weights(t);
        const Units = interleave.Units(Row.Format);
        const unit_bytes = panel_rows * Units.most_bytes;
        const block_bytes = Units.num_steps * num_strands * unit_bytes;
        const chunk_blocks = chunkSteps(Row.group) / (Units.num_steps * Row.steps);
        const line_steps = Units.line_steps;

        /// Adds the chunk's products with rows first..first + M, which lie at `x`; stores what they
        /// make when it is the last.
        noinline fn multiply(
            tile: *Self,
            comptime M: usize,
            x: [*]const u32,
            first: usize,
            out_stride: usize,
        ) void {
            const sums: *[num_strands][M][num_vectors]Sums = @ptrCast(tile.sums[first..][0..M]);
            for (sums, 0..) |*own, strand| tile.addStrand(M, x, strand, own);
            if (tile.first_block + chunk_blocks < tile.num_blocks) return;
            for (0..M) |m| inline for (tile.outputs, 0..) |out, v| {
                var own: [num_strands]Sums = undefined;
                for (&own, sums) |*sum, *strand| sum.* = strand[m][v];
                simd.store(out + (first + m) * out_stride, simd.sumHalvingAcross(lanes, own));
            };
        }

        inline fn addStrand(
            tile: *const Self,
            comptime M: usize,
            x: [*]const u32,
            strand: usize,
            sums: *[M][num_vectors]Sums,
        ) void {
            var acc: [M][num_vectors]Sums = @splat(@splat(@splat(0)));
            if (tile.first_block > 0) inline for (&acc, sums) |*own, *row| {
                own.* = row.*;
            };
            const count = @min(chunk_blocks, tile.num_blocks - tile.first_block);
            const steps = Units.num_steps * Row.steps;
            var values = x + (tile.first_block * num_strands + strand * count) * steps * M;
            const start = tile.first_block * block_bytes;
            const is_last = tile.first_block + chunk_blocks >= tile.num_blocks;
            const next_chunk = if (is_last) tile.bytes_ahead else start + chunk_blocks * block_bytes;
            // Of the next chunk as much with each strand.
            const share = block_bytes / num_strands;
            var ahead = next_chunk + strand * count * share;
            var at = start + Units.lineOf(strand, 0) * 64;
            const next_strand = start + Units.lineOf(strand + 1, 0) * 64 - at;
            for (0..count) |_| {
                // Parts after the first ask again: a branch here cost more than that (Zen 5).
                inline for (tile.sources, 0..) |source, v| if (v * lanes % panel_rows == 0) {
                    inline for (0..Units.strand_lines) |i| {
                        simd.prefetch(source + at + next_strand + Units.lineOf(0, i) * 64);
                    }
                    inline for (0..share / 64) |i| simd.prefetchSecond(source + ahead + i * 64);
                };
                inline for (0..Units.num_steps) |i| {
                    const unit = Units.lineOf(0, i / line_steps) * 64 + i % line_steps * unit_bytes;
                    var w: [num_vectors][Row.steps]@Vector(lanes, u32) = undefined;
                    inline for (&w, tile.sources) |*own, source| {
                        own.* = Row.units(lanes, source + at + unit);
                    }
                    inline for (0..Row.steps) |s| {
                        inline for (&acc, 0..) |*own, m| inline for (own, w) |*sum, weights| {
                            sum.* = Row.multiplyAdd(lanes, sum.*, weights[s], @splat(values[m]));
                        };
                        values += M;
                    }
                }
                at += block_bytes;
                ahead += share;
            }
            inline for (acc, sums) |own, *row| row.* = own;
        }
    };
}
