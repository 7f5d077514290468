//! Quantisation of a matrix by several threads: rows are handed out in runs, and a row's bytes
//! depend on that row alone, so any number of threads gives the same.
const std = @import("std");
const Variant = @import("dispatch.zig").Variant;
const quantize = @import("quantize/quantize.zig");
const max_threads = @import("pool.zig").max_threads;

/// Elements of one run: long enough that taking it costs nothing, short enough to share evenly.
const run_elements = 1 << 16;

const Shared = struct {
    variant: *const Variant,
    job: *const quantize.Job,
    rows: u64,
    rows_per_run: u64,
    next_row: std.atomic.Value(u64) = .init(0),
    lock: std.atomic.Mutex = .unlocked,
    fault: quantize.Fault = .{},

    /// Runs before a faulty one are always finished: the fault in the first row is reported.
    fn work(shared: *Shared) void {
        while (true) {
            const first = shared.next_row.fetchAdd(shared.rows_per_run, .monotonic);
            if (first >= shared.rows) return;
            const count = @min(shared.rows_per_run, shared.rows - first);
            var fault: quantize.Fault = .{};
            if (shared.variant.quantize_rows(shared.job, first, count, &fault)) continue;
            while (!shared.lock.tryLock()) std.atomic.spinLoopHint();
            defer shared.lock.unlock();
            if (fault.row < shared.fault.row) shared.fault = fault;
            return;
        }
    }
};

/// Returns the first element that the type cannot hold, if there is one.
pub fn run(
    variant: *const Variant,
    job: *const quantize.Job,
    rows: u64,
    num_threads: u32,
) ?quantize.Fault {
    var shared: Shared = .{
        .variant = variant,
        .job = job,
        .rows = rows,
        .rows_per_run = @max(1, run_elements / job.cols),
    };
    const num_runs = std.math.divCeil(u64, rows, shared.rows_per_run) catch unreachable;
    var threads: [max_threads]std.Thread = undefined;
    var spawned: usize = 0;
    const wanted = @min(num_threads, max_threads, num_runs) -| 1;
    while (spawned < wanted) : (spawned += 1) {
        // Without a thread its share falls to the others.
        threads[spawned] = std.Thread.spawn(.{ .stack_size = 1 << 20 }, Shared.work, .{&shared}) catch break;
    }
    shared.work();
    for (threads[0..spawned]) |thread| thread.join();
    return if (shared.fault.row < rows) shared.fault else null;
}

pub fn isFloat(type_id: u32) bool {
    const known = std.enums.fromInt(quantize.Type, type_id) orelse return false;
    return known == .f32 or known == .f16 or known == .bf16;
}

/// The first column whose importance is negative, infinite or NaN.
pub fn badImportance(job: *const quantize.Job) ?u64 {
    if (job.importance == 0) return null;
    const importance: [*]const f32 = @ptrFromInt(job.importance);
    for (importance[0..job.cols], 0..) |v, column| {
        if (!(v >= 0 and std.math.isFinite(v))) return column;
    }
    return null;
}
