//! Several activation rows against float weights whose rows lie interleaved, with the bits of
//! matvec_float.zig: where each weight meets so many that multiplying takes longer than reading.
//! Activations lie side by side, so that a strand of all rows is summed over the whole of K in
//! registers, and what it reads are neighbours: at distances of whole rows they would have few sets
//! of the first cache. One thread of Zen 4, a 1B model in BF16: 8 rows 306 -> 111 ms, 12 rows 440 -> 152.
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

/// Lays x `[k]` out as row `row` of its part in `memory`, `[strands][steps][rows]` of lanes.
pub fn layInput(comptime group: u32, x: []const f32, row: usize, size: usize, memory: [*]u32) void {
    const Row = strands.Activations(group);
    const num_steps = strands.numSteps(group, x.len);
    const source: [*]const u8 = @ptrCast(x.ptr);
    var step: usize = 0;
    while (step < num_steps) : (step += Row.steps) {
        const read = Row.read(source, step / Row.steps * Row.elements, x.len, 1);
        for (read, step..) |values, at| {
            const own: [num_strands]u32 = values;
            for (own, 0..) |value, strand| memory[(strand * num_steps + at) * size + row] = value;
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
        while (tile.first_block < tile.num_blocks) : (tile.first_block += chunk_blocks) {
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

/// Blocks of each row that all activations meet before the next ones: 64 KiB of a panel. So many of
/// some panels and of those that take their places stay in a second-level cache.
const chunk_blocks = 16;

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
        const together = interleave.strands_together;

        /// Adds the chunk's products with rows first..first + M, which lie at `x`; stores what they
        /// make when it is the last.
        noinline fn multiply(
            tile: *Self,
            comptime M: usize,
            x: [*]const u32,
            first: usize,
            out_stride: usize,
        ) void {
            const sums = tile.sums[first..][0..M];
            for (0..num_strands) |strand| tile.addStrand(M, x, strand, first == 0, sums);
            if (tile.first_block + chunk_blocks < tile.num_blocks) return;
            for (sums, first..) |*row, m| inline for (tile.outputs, 0..) |out, v| {
                var own: [num_strands]Sums = undefined;
                for (&own, row) |*sum, strand| sum.* = strand[v];
                simd.store(out + m * out_stride, simd.sumHalvingAcross(lanes, own));
            };
        }

        inline fn addStrand(
            tile: *const Self,
            comptime M: usize,
            x: [*]const u32,
            strand: usize,
            is_first: bool,
            sums: *[M][num_strands][num_vectors]Sums,
        ) void {
            var acc: [M][num_vectors]Sums = @splat(@splat(@splat(0)));
            if (tile.first_block > 0) inline for (&acc, sums) |*own, *row| {
                own.* = row[strand];
            };
            const count = @min(chunk_blocks, tile.num_blocks - tile.first_block);
            const steps = Units.num_steps * Row.steps;
            var values = x + (strand * tile.num_blocks + tile.first_block) * steps * M;
            const unit = (strand / together * Units.num_steps * together + strand % together) * unit_bytes;
            const start = tile.first_block * block_bytes;
            for (0..count) |block| {
                // Of the next chunk as much with each strand, in order.
                if (is_first) inline for (tile.sources, 0..) |source, v| {
                    if (v * lanes % panel_rows == 0) {
                        const is_last = tile.first_block + chunk_blocks >= tile.num_blocks;
                        const next = if (is_last) tile.bytes_ahead else start + chunk_blocks * block_bytes;
                        const some = block_bytes / num_strands;
                        const ahead = source + next + (strand * count + block) * some;
                        inline for (0..some / 64) |i| simd.prefetchSecond(ahead + i * 64);
                    }
                };
                inline for (0..Units.num_steps) |i| {
                    var w: [num_vectors][Row.steps]@Vector(lanes, u32) = undefined;
                    inline for (&w, tile.sources) |*own, source| {
                        const at = start + block * block_bytes + unit + i * together * unit_bytes;
                        own.* = Row.units(lanes, source + at);
                    }
                    inline for (0..Row.steps) |s| {
                        inline for (&acc, 0..) |*own, m| inline for (own, w) |*sum, weights| {
                            sum.* = Row.multiplyAdd(lanes, sum.*, weights[s], @splat(values[m]));
                        };
                        values += M;
                    }
                }
            }
            inline for (acc, sums) |own, *row| row[strand] = own;
        }
    };
}
