//! How the rows regime cuts a matrix into units: in rounds of one unit per thread, each round
//! about half of what is left, so that streams are long and the last units short.
const std = @import("std");
const matvec = @import("matvec.zig");
const Tuning = @import("../tuning.zig").Tuning;

/// Rows of a quarter in the largest unit, which bounds the buffer of its results.
pub const max_quarter_rows = 256;

/// Rows `first..first + count` of every quarter of a matrix.
pub const Slice = struct { first: usize, count: usize };

pub const Rounds = struct {
    /// Rows of a quarter.
    total: usize,
    num_threads: usize,
    smallest: usize,
    largest: usize,
    first: usize = 0,

    /// For a unit that multiplies `input_rows` with weight rows of `row_bytes`.
    pub fn of(
        tuning: *const Tuning,
        num_threads: usize,
        num_columns: usize,
        input_rows: usize,
        row_bytes: usize,
    ) Rounds {
        // Four rows share one decoding; more rows pass over the unit again, from the cache.
        const passes = (input_rows + 3) / 4;
        const longest = if (passes == 1) max_quarter_rows else tuning.cached_stream_bytes / row_bytes;
        const shortest = @max(4, tuning.stream_bytes / passes / row_bytes);
        const smallest = @min(shortest, max_quarter_rows);
        return .{
            .total = matvec.Span.quarterRows(num_columns),
            .num_threads = num_threads,
            .smallest = smallest,
            .largest = std.math.clamp(longest, smallest, max_quarter_rows),
        };
    }

    /// All units of the largest size: where others follow that even the threads out.
    pub fn withoutEnd(rounds: Rounds) Rounds {
        var even = rounds;
        even.smallest = rounds.largest;
        return even;
    }

    const Round = struct { first: usize, size: usize, num_units: usize };

    pub fn next(rounds: *Rounds) ?Round {
        const left = rounds.total - rounds.first;
        if (left == 0) return null;
        const half = (left + 2 * rounds.num_threads - 1) / (2 * rounds.num_threads);
        const size = std.math.clamp(half, rounds.smallest, rounds.largest);
        const num_units = @min(rounds.num_threads, (left + size - 1) / size);
        defer rounds.first = @min(rounds.first + num_units * size, rounds.total);
        return .{ .first = rounds.first, .size = size, .num_units = num_units };
    }

    pub fn numUnits(rounds: Rounds) usize {
        var rest = rounds;
        var count: usize = 0;
        while (rest.next()) |round| count += round.num_units;
        return count;
    }

    /// Unit `index`, or null where there are fewer.
    pub fn at(rounds: Rounds, index: usize) ?Slice {
        var rest = rounds;
        var left = index;
        while (rest.next()) |round| {
            if (left < round.num_units) {
                const first = round.first + left * round.size;
                return .{ .first = first, .count = @min(round.size, rounds.total - first) };
            }
            left -= round.num_units;
        }
        return null;
    }
};
