//! Rows of a matrix that several threads work on outside of steps: handed out in runs.
const std = @import("std");
const max_threads = @import("pool.zig").max_threads;

/// Elements of one run: long enough that taking it costs nothing, short enough to share evenly.
const run_elements = 1 << 16;

pub const RowRuns = struct {
    rows: u64,
    rows_per_run: u64,
    next_row: std.atomic.Value(u64) = .init(0),

    pub fn of(rows: u64, cols: u64) RowRuns {
        return .{ .rows = rows, .rows_per_run = @max(1, run_elements / cols) };
    }

    /// The next run, first and count.
    pub fn next(runs: *RowRuns) ?struct { u64, u64 } {
        const first = runs.next_row.fetchAdd(runs.rows_per_run, .monotonic);
        if (first >= runs.rows) return null;
        return .{ first, @min(runs.rows_per_run, runs.rows - first) };
    }

    /// Calls `work(context, thread)` on up to `num_threads` threads, which take runs each.
    pub fn share(
        runs: *const RowRuns,
        num_threads: u32,
        context: anytype,
        comptime work: fn (@TypeOf(context), u32) void,
    ) void {
        const num_runs = std.math.divCeil(u64, runs.rows, runs.rows_per_run) catch unreachable;
        var threads: [max_threads]std.Thread = undefined;
        var spawned: u32 = 0;
        const wanted = @min(num_threads, max_threads, num_runs) -| 1;
        while (spawned < wanted) : (spawned += 1) {
            const arguments = .{ context, spawned + 1 };
            // Without a thread its share falls to the others.
            threads[spawned] =
                std.Thread.spawn(.{ .stack_size = 1 << 20 }, work, arguments) catch break;
        }
        work(context, 0);
        for (threads[0..spawned]) |thread| thread.join();
    }
};
