//! linear: outputs[i] (+)= input · weights[i]ᵀ + biases[i] for matrices that share an input.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;

pub fn run(step: *const Step, op: *const plan.Linear, worker: *Worker) void {
    const rows = step.rows(op.input);
    for (op.outputs[0..op.num_outputs]) |out| {
        const w = step.weights[out.weight];
        const bias = step.vector(out.bias);
        var phase = worker.phase(w.rows);
        while (phase.next()) |n| for (0..rows) |t| {
            var value = dot(step.tensor(op.input) + t * w.cols, w, n);
            if (bias) |b| value += b[n];
            const target = &step.tensor(out.output)[t * w.rows + n];
            target.* = if (op.epilogue == .accumulate) target.* + value else value;
        };
        worker.sync();
    }
}

pub fn dot(x: [*]const f32, w: plan.Weight, n: u32) f32 {
    const row: [*]const f32 = @ptrFromInt(w.address + @as(u64, n) * w.cols * 4);
    var sum: f32 = 0;
    for (0..w.cols) |k| sum += x[k] * row[k];
    return sum;
}

pub fn scratchNeed(step: *const Step, op: *const plan.Linear, num_threads: u32) ScratchNeed {
    _ = .{ step, op, num_threads };
    return .{};
}
