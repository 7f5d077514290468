//! rotations: the step's RoPE table, cosines and sines of position times frequency.
//! Angles are formed in f64, since f32 loses the phase of long positions.
const std = @import("std");
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;

pub fn run(step: *const Step, op: *const plan.Rotations, worker: *Worker) void {
    const frequencies = step.vector(op.frequencies).?;
    const n: usize = step.weights[op.frequencies].cols;
    const positions = step.array(i32, step.data.positions);
    const output = step.tensor(op.output);

    var phase = worker.phase(step.data.num_tokens);
    while (phase.next()) |t| {
        const row = output[t * 2 * n ..][0 .. 2 * n];
        const position: f64 = @floatFromInt(positions[t]);
        for (0..n) |i| {
            const angle = position * frequencies[i];
            row[i] = @as(f32, @floatCast(@cos(angle))) * op.magnitude;
            row[n + i] = @as(f32, @floatCast(@sin(angle))) * op.magnitude;
        }
    }
    worker.sync();
}
