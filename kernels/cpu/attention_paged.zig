//! attention_paged: softmax(scale · q·k) · v over each sequence's KV cache.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;

pub fn run(step: *const Step, op: *const plan.AttentionPaged, worker: *Worker) void {
    _ = .{ step, op };
    worker.sync();
}

pub fn scratchNeed(step: *const Step, op: *const plan.AttentionPaged, num_threads: u32) ScratchNeed {
    _ = .{ step, op, num_threads };
    return .{};
}
