//! Where the weights of a tile come from: rows one after another, or panels of rows that lie
//! interleaved.
const interleave = @import("../interleave.zig");
const layout = @import("tile_layout.zig");
const unpack = @import("tile_unpack.zig");
const vector = @import("tile_vector.zig");
const Tile = layout.Tile;
const columns = layout.columns;

/// Rows past the matrix repeat the last one.
pub const Rows = struct {
    rows: [columns][*]const u8,

    /// `n` rows from `start` on.
    pub fn of(start: [*]const u8, row_bytes: usize, n: usize) Rows {
        var sources: Rows = undefined;
        for (&sources.rows, 0..) |*row, i| row.* = start + @min(i, n - 1) * row_bytes;
        return sources;
    }

    /// Weights k0..k0 + kc of every row, which is `k` long.
    pub fn unpackTile(
        sources: *const Rows,
        comptime Format: type,
        tile: *Tile,
        k0: usize,
        kc: usize,
        k: usize,
    ) void {
        @setEvalBranchQuota(10000);
        const block_len = comptime unpack.blockLen(Format);
        const tile_bytes = comptime layout.depth / block_len * Format.block_bytes;
        var column: usize = 0;
        while (column < columns) : (column += vector.lanes) {
            const strip: unpack.Strip(unpack.Rows) = .{
                .source = .{
                    .rows = sources.rows[column..][0..vector.lanes],
                    .ahead = .{
                        .offset = sources.offsetAhead(Format, k0, k),
                        .lines = comptime unpack.Ahead.linesFor(tile_bytes),
                    },
                },
                .tile = tile,
                .column = column,
            };
            for (0..kc / block_len) |b| {
                Format.block(&strip, (k0 / block_len + b) * Format.block_bytes, b);
            }
        }
    }

    /// From a row's first byte to its bytes of the next tile, which is of the next 32 rows where the
    /// row ends with this one.
    fn offsetAhead(sources: *const Rows, comptime Format: type, k0: usize, k: usize) usize {
        const next = k0 + layout.depth;
        if (next < k) return next / unpack.blockLen(Format) * Format.block_bytes;
        const row_bytes = @intFromPtr(sources.rows[1]) - @intFromPtr(sources.rows[0]);
        return columns * row_bytes;
    }
};

/// Rows of format `Q` that lie interleaved. The hardware follows the panels by itself.
pub fn Panels(comptime Q: type) type {
    return struct {
        panels: [columns / interleave.panel_rows][*]const u8,

        const Self = @This();

        /// `n` rows, whole panels, from `start` on.
        pub fn of(start: [*]const u8, row_bytes: usize, n: usize) Self {
            const panel_rows = interleave.panel_rows;
            var sources: Self = undefined;
            for (&sources.panels, 0..) |*panel, i| {
                panel.* = start + @min(i * panel_rows, n - panel_rows) * row_bytes;
            }
            return sources;
        }

        pub fn unpackTile(
            sources: *const Self,
            comptime Format: type,
            tile: *Tile,
            k0: usize,
            kc: usize,
            _: usize,
        ) void {
            @setEvalBranchQuota(10000);
            const block_len = comptime unpack.blockLen(Format);
            var column: usize = 0;
            while (column < columns) : (column += vector.lanes) {
                const panel = sources.panels[column / interleave.panel_rows];
                for (0..kc / block_len) |b| {
                    const at = (k0 / block_len + b) * Format.block_bytes * interleave.panel_rows;
                    const strip: unpack.Strip(unpack.Panel(Q)) = .{
                        .source = .{ .block = panel + at, .first = column % interleave.panel_rows },
                        .tile = tile,
                        .column = column,
                    };
                    Format.block(&strip, 0, b);
                }
            }
        }
    };
}
