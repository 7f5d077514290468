//! The second layout of weight matrices: 16 rows side by side, so that a vector holds the same
//! weights of 16 rows (llama.cpp: repacked). A panel of 16 rows takes the bytes that they took, and
//! their blocks of the same weights are neighbours: cut into units of a dword, the first unit of all
//! 16 blocks, then the second, in the order in which kernels read them. Floats, which have no blocks,
//! are cut into blocks of 256 bytes.
const std = @import("std");
const plan = @import("plan.zig");
const quant = @import("quant/quant.zig");

/// Rows of a panel, which takes as many bytes as its rows one after another.
pub const panel_rows = 16;

/// Whether kernels take the type in this layout.
pub fn hasLayout(t: quant.Type) bool {
    return switch (t) {
        .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .iq4_nl, .mxfp4, .nvfp4, .q1_0, .q2_0 => true,
        .q2_k, .q3_k, .q4_k, .q5_k, .q6_k, .iq4_xs, .tq1_0 => true,
        .f32, .f16, .bf16 => true,
        else => false,
    };
}

/// Whether kernels take rows of `cols` weights of the type in this layout.
pub fn fits(t: quant.Type, cols: usize) bool {
    if (!hasLayout(t)) return false;
    return !quant.isFloat(t) or quant.rowBytes(@intFromEnum(t), cols) % float_block == 0;
}

/// Rows of a weight that may have this layout: a panel in each quarter (matvec_span.zig).
pub const row_step = 4 * panel_rows;

/// Bytes of a row of floats that are cut into units together, like a block of others.
const float_block = 256;
/// Strands of the sum of a row of floats (matvec_float.zig).
pub const num_strands = 16;
/// Those of which such a block holds all units before those of the next ones.
pub const strands_together = 4;

/// The units of a block: dwords, but for a shorter scale where the block's size is no multiple of 4.
/// Those of floats are what meets one activation, or a pair of them.
pub fn Units(comptime Q: type) type {
    const is_float = Q.block_len == 1;
    return struct {
        pub const size = if (is_float) float_block else @sizeOf(Q.Block);
        const Blocks = [size / @sizeOf(Q.Block)]Q.Block;
        pub const most_bytes = if (is_float) Q.together * @sizeOf(Q.Block) else 4;
        const count = (size + most_bytes - 1) / most_bytes;
        /// Of floats: units of each strand.
        pub const num_steps = count / num_strands;
        /// Of floats: units of 16 rows in a cache line, one step of a strand each.
        pub const line_steps = 64 / panel_rows / most_bytes;
        /// Of floats: cache lines of each strand.
        pub const strand_lines = num_steps / line_steps;

        /// Of floats: where a strand's line `i` is, in lines; `strand` and `i` may be of the next
        /// blocks. A line of each of `strands_together` strands, then their next lines; when those
        /// strands are done, the others. So each line is one strand's: with two strands in a line, a
        /// strand took every second one, which come slower (Zen 5, F16: 25 GB/s, every fourth 33).
        pub inline fn lineOf(strand: usize, i: usize) usize {
            const group = strand / strands_together;
            return (group * strand_lines + i) * strands_together + strand % strands_together;
        }
        const order_of_lines: [count][2]usize = blk: {
            @setEvalBranchQuota(10_000);
            var all: [count][2]usize = undefined;
            for (0..count) |unit| {
                const step = unit / num_strands;
                const line = lineOf(unit % num_strands, step / line_steps);
                all[line * line_steps + step % line_steps] = .{ unit * most_bytes, most_bytes };
            }
            break :blk all;
        };

        /// Of the shorter unit, where there is one.
        const odd_at = if (size % most_bytes == 0) size else @offsetOf(Q.Block, scale);
        const scale = if (@hasField(Q.Block, "e")) "e" else "d";
        /// Stretches of bytes, each as its start and length. A format says so where kernels read its
        /// blocks in another order than that of their bytes.
        const order: []const [2]usize = if (is_float)
            &order_of_lines
        else if (@hasDecl(Q, "read_order")) &Q.read_order else &.{.{ 0, size }};
        /// Where units start, in that order.
        const starts: [count]usize = blk: {
            @setEvalBranchQuota(100_000);
            var all: [count]usize = undefined;
            var num: usize = 0;
            for (order) |stretch| {
                var at, const len = stretch;
                const end = at + len;
                while (at < end) : (at += width(at)) {
                    all[num] = at;
                    num += 1;
                }
                if (at != end) @compileError("a stretch is not whole units");
            }
            if (num != all.len) @compileError("a block is not its units");
            break :blk all;
        };
        /// By offset into a block: where that unit begins in 16 blocks.
        pub const places: [size]usize = blk: {
            var all: [size]usize = @splat(nowhere);
            var place: usize = 0;
            for (starts) |start| {
                all[start] = place;
                place += width(start) * panel_rows;
            }
            break :blk all;
        };
        const nowhere = size * panel_rows;
        fn width(start: usize) usize {
            return if (start == odd_at) size % most_bytes else most_bytes;
        }

        /// The unit at `start` of a block: where it begins in 16 blocks.
        pub fn placeOf(comptime start: usize, comptime len: usize) usize {
            if (places[start] == nowhere or width(start) != len) @compileError("no unit");
            return places[start];
        }
    };
}

/// Brings `num_rows` rows of `cols` weights, whole panels, into this layout where they are.
/// `memory` holds a panel.
pub fn apply(t: quant.Type, start: [*]u8, num_rows: usize, cols: usize, memory: []u8) void {
    const row_bytes = quant.rowBytes(@intFromEnum(t), cols);
    const panel_bytes = panel_rows * row_bytes;
    switch (t) {
        inline else => |known| if (comptime hasLayout(known)) {
            for (0..num_rows / panel_rows) |p| {
                const panel = start + p * panel_bytes;
                @memcpy(memory[0..panel_bytes], panel[0..panel_bytes]);
                applyPanel(quant.Format(known), memory.ptr, row_bytes, panel);
            }
        } else unreachable,
    }
}

fn applyPanel(comptime Q: type, source: [*]const u8, row_bytes: usize, panel: [*]u8) void {
    @setEvalBranchQuota(100_000);
    const units = Units(Q);
    for (0..row_bytes / units.size) |b| {
        for (0..panel_rows) |lane| {
            const from = source + lane * row_bytes + b * units.size;
            const to = panel + b * units.size * panel_rows;
            inline for (units.starts) |at| {
                const width = comptime units.width(at);
                to[units.places[at] + lane * width ..][0..width].* = from[at..][0..width].*;
            }
        }
    }
}

/// Block `b` of row `lane` of a panel, as in a file, or as many floats.
fn blocksOf(comptime Q: type, panel: [*]const u8, lane: usize, b: usize) Units(Q).Blocks {
    @setEvalBranchQuota(100_000);
    const units = Units(Q);
    var bytes: [units.size]u8 = undefined;
    const from = panel + b * units.size * panel_rows;
    inline for (units.starts) |at| {
        const width = comptime units.width(at);
        bytes[at..][0..width].* = from[units.places[at] + lane * width ..][0..width].*;
    }
    return @bitCast(bytes);
}

/// Expands row `row` of a weight in any layout.
pub fn dequantizeRow(weight: *const plan.Weight, row: usize, output: []f32) void {
    const first: [*]const u8 = @ptrFromInt(weight.address);
    const row_bytes = quant.rowBytes(weight.type, weight.cols);
    if (weight.layout == .rows) {
        _ = quant.dequantize(weight.type, first + row * row_bytes, output);
        return;
    }
    const panel = first + row / panel_rows * panel_rows * row_bytes;
    switch (quant.fromId(weight.type).?) {
        inline else => |t| if (comptime hasLayout(t)) {
            const Q = quant.Format(t);
            for (0..row_bytes / Units(Q).size) |b| {
                const blocks = blocksOf(Q, panel, row % panel_rows, b);
                for (&blocks, b * blocks.len..) |*block, i| {
                    quant.dequantizeBlock(Q, block, output[i * Q.block_len ..][0..Q.block_len]);
                }
            }
        } else unreachable,
    }
}

test "every block comes back" {
    inline for (std.enums.values(quant.Type)) |t| if (comptime hasLayout(t)) {
        const Q = quant.Format(t);
        const size = Units(Q).size;
        var prng: std.Random.DefaultPrng = .init(7);
        const blocks_per_row = 3;
        const num_rows = 2 * panel_rows;
        var original: [num_rows * blocks_per_row * size]u8 = undefined;
        prng.random().bytes(&original);
        var bytes = original;
        var memory: [panel_rows * blocks_per_row * size]u8 = undefined;
        apply(t, &bytes, num_rows, memory.len / panel_rows / @sizeOf(Q.Block) * Q.block_len, &memory);
        for (0..num_rows) |row| for (0..blocks_per_row) |b| {
            const panel = bytes[row / panel_rows * memory.len ..];
            const blocks = blocksOf(Q, panel.ptr, row % panel_rows, b);
            const expected = original[(row * blocks_per_row + b) * size ..];
            try std.testing.expectEqualSlices(u8, expected[0..size], std.mem.asBytes(&blocks));
        };
    };
}
