//! linear_glu: activation(input · gateᵀ) * (input · upᵀ), the gated half of an MLP.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const linear = @import("linear.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;

pub fn run(step: *const Step, op: *const plan.LinearGlu, worker: *Worker) void {
    const rows = step.rows(op.input);
    const gate = step.weights[op.gate];
    const up = step.weights[op.up];
    var phase = worker.phase(gate.rows);
    while (phase.next()) |n| for (0..rows) |t| {
        const x = step.tensor(op.input) + t * gate.cols;
        const g = linear.dot(x, gate, n);
        step.tensor(op.output)[t * gate.rows + n] = g / (1 + @exp(-g)) * linear.dot(x, up, n);
    };
    worker.sync();
}

pub fn scratchNeed(step: *const Step, op: *const plan.LinearGlu, num_threads: u32) ScratchNeed {
    _ = .{ step, op, num_threads };
    return .{};
}
