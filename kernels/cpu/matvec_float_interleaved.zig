//! A few activation rows against float weights whose rows lie interleaved: a lane is a weight row, a
//! vector one strand of 16 rows, with the bits of matvec_float.zig. Each activation is a broadcast
//! operand and read once for 16 rows instead of four, so that long rows of activations, which do
//! not stay in a first-level cache beside the weights, cost little.
const std = @import("std");
const simd = @import("../simd.zig");
const interleave = @import("../interleave.zig");
const quant = @import("../quant/quant.zig");
const strands = @import("strands.zig");
const FlushDenormals = @import("../float_control.zig").FlushDenormals;
const panel_rows = interleave.panel_rows;
const num_strands = interleave.num_strands;

const lanes = simd.native_lanes;
const Sums = @Vector(lanes, f32);

/// Whether four streams are read at a time for one activation row instead of two (Zen 5: F16, one
/// thread, 28 -> 32 GB/s; BF16, two threads, 89 -> 97 % of plain loads of four). Sums that are not all
/// in registers would be made in turns.
pub const takes_four = lanes == panel_rows;

/// Activation rows whose sums of `strands_together` strands take half of the registers. More rows
/// have a kernel of their own (matvec_float_beside.zig).
pub const max_rows_at_once = simd.num_registers / 2 / interleave.strands_together;

/// Products of `count` weight rows of each of some streams, an array, whole panels, with M activation
/// rows, laid out by matvec_float.zig.
pub fn multiply(
    comptime t: quant.Type,
    comptime M: usize,
    streams: anytype,
    count: usize,
    k: usize,
    x: *const [M][*]align(64) const u8,
    out_stride: usize,
    prefetch_bytes: usize,
) void {
    @setEvalBranchQuota(10_000);
    const mode: ?FlushDenormals = if (t == .bf16) .begin() else null;
    defer if (mode) |previous| previous.end();
    const Panels = PanelOfEach(t, M, streams.len);
    const num_steps = k / Panels.Row.elements;
    // Streams are followed less far than rows: Zen 4 is fastest at 128 to 256 bytes. Four of F16 want
    // more: Zen 5, a 1B model, 38.6 ms a token at 1024 bytes, 36.9 at 1536; BF16 35.1 and 35.3.
    const quarters: usize = if (t == .f16 and streams.len == 4) 3 else 2;
    const distance = prefetch_bytes * quarters / 4;
    var next: [streams.len][*]const u8 = undefined;
    for (&next, streams) |*source, stream| source.* = stream.start;
    var r: usize = 0;
    while (r < count) : (r += panel_rows) {
        var panels: Panels = undefined;
        var first: usize = 0;
        while (first < num_steps) : (first += Panels.Units.num_steps) {
            panels.addBlock(&next, x, first, distance);
        }
        for (0..M) |m| for (0..Panels.num_vectors) |v| {
            const out = streams[v % streams.len].out + m * out_stride + r + v / streams.len * lanes;
            var own: [num_strands]Sums = undefined;
            for (&own, &panels.sums[m]) |*sum, strand| sum.* = strand[v];
            simd.store(out, simd.sumHalvingAcross(lanes, own));
        };
    }
}

/// The sums of a panel's rows of each stream with M activation rows.
fn PanelOfEach(comptime t: quant.Type, comptime M: usize, comptime num_streams: usize) type {
    const strands_together = interleave.strands_together;
    // Of the rows, one of each stream in turns.
    const all = num_streams * panel_rows / lanes;
    // Those whose sums are in registers at a time: half of the registers.
    const wanted = simd.num_registers / 2 / strands_together / M;
    const together = std.math.floorPowerOfTwo(usize, std.math.clamp(wanted, 1, all));

    return struct {
        sums: [M][num_strands][num_vectors]Sums,

        const num_vectors = all;
        const Self = @This();
        const Row = strands.Weights(t);
        const Units = interleave.Units(Row.Format);
        const unit_bytes = panel_rows * Units.most_bytes;
        /// Of the units of some strands in a block of each row (interleave.zig).
        const chunk_bytes = Units.num_steps * strands_together * unit_bytes;

        /// Adds the products of a block of each row at `next`, which begins with step `first`.
        inline fn addBlock(
            panels: *Self,
            next: *[num_streams][*]const u8,
            x: *const [M][*]align(64) const u8,
            first: usize,
            prefetch_bytes: usize,
        ) void {
            inline for (0..num_strands / strands_together) |group| {
                inline for (0..num_vectors / together) |turn| {
                    const strand = group * strands_together;
                    panels.addChunks(strand, turn * together, next, x, first, prefetch_bytes);
                }
                for (next) |*source| source.* += chunk_bytes;
            }
        }

        /// Of some strands, and of some vectors.
        inline fn addChunks(
            panels: *Self,
            comptime first_strand: usize,
            comptime first_vector: usize,
            sources: *const [num_streams][*]const u8,
            x: *const [M][*]align(64) const u8,
            first: usize,
            prefetch_bytes: usize,
        ) void {
            var acc: [M][strands_together][together]Sums = undefined;
            // Zeros in memory would cost as much as the products of a row do.
            if (first == 0) {
                acc = @splat(@splat(@splat(@splat(0))));
            } else inline for (&acc, &panels.sums) |*own, *sums| inline for (own, 0..) |*strand, s| {
                strand.* = sums[first_strand + s][first_vector..][0..together].*;
            };
            const line_steps = Units.line_steps;
            for (0..Units.strand_lines) |line| inline for (0..strands_together) |s| {
                inline for (0..line_steps) |l| inline for (0..together) |n| {
                    const v = first_vector + n;
                    const unit = Units.lineOf(s, line) * line_steps + l;
                    const source = sources[v % num_streams] + unit * unit_bytes;
                    // Each line once.
                    if (v < num_streams and l == 0) simd.prefetchOnce(source + prefetch_bytes);
                    const w = Row.units(lanes, source + v / num_streams * lanes * Units.most_bytes);
                    const step = first + line * line_steps + l;
                    inline for (&acc, x) |*own, row| {
                        own[s][n] = addUnits(own[s][n], w, row, step, first_strand + s);
                    }
                };
            };
            inline for (&acc, &panels.sums) |*own, *sums| inline for (own, 0..) |strand, s| {
                sums[first_strand + s][first_vector..][0..together].* = strand;
            };
        }

        inline fn addUnits(
            acc: Sums,
            w: [Row.steps]@Vector(lanes, u32),
            row: [*]align(64) const u8,
            step: usize,
            comptime strand: usize,
        ) Sums {
            const x: [*]align(64) const [Row.steps][num_strands]u32 = @ptrCast(row);
            var sum = acc;
            inline for (w, 0..) |own, s| {
                sum = Row.multiplyAdd(lanes, sum, own, @splat(x[step][s][strand]));
            }
            return sum;
        }
    };
}
