//! The second layout of weight matrices: 16 rows side by side, so that a vector holds the same
//! weights of 16 rows (llama.cpp: repacked). A panel of 16 rows takes the bytes that they took, and
//! their blocks of the same weights are neighbours: cut into units of a dword, the first unit of all
//! 16 blocks, then the second, in the order in which kernels read them.
const std = @import("std");
const plan = @import("plan.zig");
const quant = @import("quant/quant.zig");

/// Rows of a panel, which takes as many bytes as its rows one after another.
pub const panel_rows = 16;

/// Whether kernels take the type in this layout.
pub fn hasLayout(t: quant.Type) bool {
    return switch (t) {
        .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .iq4_nl, .mxfp4 => true,
        .q2_k, .q3_k, .q4_k, .q5_k, .q6_k => true,
        else => false,
    };
}

/// Rows of a weight that may have this layout: a panel in each quarter (matvec_span.zig).
pub const row_step = 4 * panel_rows;

/// The units of a block: dwords, but for a shorter scale where the block's size is no multiple of 4.
pub fn Units(comptime Q: type) type {
    return struct {
        const size = @sizeOf(Q.Block);
        /// Of the shorter unit, where there is one.
        const odd_at = if (size % 4 == 0) size else @offsetOf(Q.Block, scale);
        const scale = if (@hasField(Q.Block, "e")) "e" else "d";
        /// Stretches of bytes, each as its start and length. A format says so where kernels read its
        /// blocks in another order than that of their bytes.
        const order: []const [2]usize =
            if (@hasDecl(Q, "read_order")) &Q.read_order else &.{.{ 0, size }};
        /// Where units start, in that order.
        const starts: [(size + 3) / 4]usize = blk: {
            @setEvalBranchQuota(100_000);
            var all: [(size + 3) / 4]usize = undefined;
            var count: usize = 0;
            for (order) |stretch| {
                var at, const len = stretch;
                const end = at + len;
                while (at < end) : (at += width(at)) {
                    all[count] = at;
                    count += 1;
                }
                if (at != end) @compileError("a stretch is not whole units");
            }
            if (count != all.len) @compileError("a block is not its units");
            break :blk all;
        };
        /// By offset into a block: where that unit begins in 16 blocks.
        const places: [size]usize = blk: {
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
            return if (start == odd_at) size % 4 else 4;
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

/// Block `b` of row `lane` of a panel, as in a file.
pub fn blockOf(comptime Q: type, panel: [*]const u8, lane: usize, b: usize) Q.Block {
    @setEvalBranchQuota(100_000);
    const units = Units(Q);
    var block: [units.size]u8 = undefined;
    const from = panel + b * units.size * panel_rows;
    inline for (units.starts) |at| {
        const width = comptime units.width(at);
        block[at..][0..width].* = from[units.places[at] + lane * width ..][0..width].*;
    }
    return @bitCast(block);
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
            for (0..output.len / Q.block_len) |b| {
                const block = blockOf(Q, panel, row % panel_rows, b);
                quant.dequantizeBlock(Q, &block, output[b * Q.block_len ..][0..Q.block_len]);
            }
        } else unreachable,
    }
}

test "every block comes back" {
    inline for (std.enums.values(quant.Type)) |t| if (comptime hasLayout(t)) {
        const Block = quant.Format(t).Block;
        var prng: std.Random.DefaultPrng = .init(7);
        const blocks_per_row = 3;
        const num_rows = 2 * panel_rows;
        var original: [num_rows * blocks_per_row * @sizeOf(Block)]u8 = undefined;
        prng.random().bytes(&original);
        var bytes = original;
        var memory: [panel_rows * blocks_per_row * @sizeOf(Block)]u8 = undefined;
        apply(t, &bytes, num_rows, blocks_per_row * quant.blockLen(t), &memory);
        for (0..num_rows) |row| for (0..blocks_per_row) |b| {
            const panel = bytes[row / panel_rows * memory.len ..];
            const block = blockOf(quant.Format(t), panel.ptr, row % panel_rows, b);
            const expected = original[(row * blocks_per_row + b) * @sizeOf(Block) ..];
            try std.testing.expectEqualSlices(u8, expected[0..@sizeOf(Block)], std.mem.asBytes(&block));
        };
    };
}
