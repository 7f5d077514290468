//! Quantisation of a matrix by several threads: a row's bytes depend on that row alone, so any
//! number of threads gives the same.
const std = @import("std");
const Variant = @import("dispatch.zig").Variant;
const quant = @import("quant/quant.zig");
const quantize = @import("quantize/quantize.zig");
const RowRuns = @import("row_runs.zig").RowRuns;

const Shared = struct {
    variant: *const Variant,
    job: *const quantize.Job,
    runs: RowRuns,
    lock: std.atomic.Mutex = .unlocked,
    fault: quantize.Fault = .{},

    /// Runs before a faulty one are always finished: the fault in the first row is reported.
    fn work(shared: *Shared, _: u32) void {
        while (shared.runs.next()) |range| {
            const first, const count = range;
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
    var shared: Shared = .{ .variant = variant, .job = job, .runs = .of(rows, job.cols) };
    shared.runs.share(num_threads, &shared, Shared.work);
    return if (shared.fault.row < rows) shared.fault else null;
}

pub fn isFloat(type_id: u32) bool {
    const known = quant.fromId(type_id) orelse return false;
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
