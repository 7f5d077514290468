//! How the rows regime cuts a matrix into units: short slices, so that threads end together. A
//! thread takes as many neighbours at once as is fair (worker.zig), so that streams are long.
const std = @import("std");
const matvec = @import("matvec.zig");
const Tuning = @import("../tuning.zig").Tuning;

/// Rows of a quarter in the longest slice, which bounds the buffer of its results.
pub const max_quarter_rows = 256;
/// Fewer are mostly the unit's own start and end.
const least_quarter_rows = 4;

/// Rows `first..first + count` of every quarter of a matrix.
pub const Slice = struct { first: usize, count: usize };

pub const Slices = struct {
    /// Rows of a quarter.
    total: usize,
    /// Rows of one unit.
    size: usize,
    /// Units taken at once.
    most: u32,

    /// For a unit that multiplies `input_rows` with weight rows of `row_bytes`.
    pub fn of(
        tuning: *const Tuning,
        num_columns: usize,
        input_rows: usize,
        row_bytes: usize,
    ) Slices {
        const shortest = tuning.stream_bytes / row_bytes;
        const size = std.math.clamp(shortest, least_quarter_rows, max_quarter_rows);
        // Four rows share one decoding; more rows pass over the slice again, from the cache.
        const is_cached = input_rows > 4;
        const longest = if (is_cached) tuning.cached_stream_bytes / row_bytes else max_quarter_rows;
        return .{
            .total = matvec.Span.quarterRows(num_columns),
            .size = size,
            .most = @intCast(std.math.clamp(longest, size, max_quarter_rows) / size),
        };
    }

    pub fn count(slices: Slices) usize {
        return (slices.total + slices.size - 1) / slices.size;
    }

    /// Units first..end; those past the matrix are not there.
    pub fn at(slices: Slices, first: usize, end: usize) Slice {
        const row = first * slices.size;
        return .{ .first = row, .count = @min(end * slices.size, slices.total) - row };
    }
};
