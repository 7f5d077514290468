//! The sums of row_sums.zig over a matrix by several threads: a row's depend on that row alone.
const Variant = @import("dispatch.zig").Variant;
const RowRuns = @import("row_runs.zig").RowRuns;
const row_sums = @import("row_sums.zig");

const Shared = struct {
    variant: *const Variant,
    job: *const row_sums.Job,
    runs: RowRuns,

    fn work(shared: *Shared, thread: u32) void {
        while (shared.runs.next()) |range| {
            shared.variant.sum_rows(shared.job, range[0], range[1], thread);
        }
    }
};

pub fn run(variant: *const Variant, job: *const row_sums.Job, num_threads: u32) void {
    var shared: Shared = .{ .variant = variant, .job = job, .runs = .of(job.rows, job.cols) };
    shared.runs.share(num_threads, &shared, Shared.work);
}
