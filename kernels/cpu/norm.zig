//! norm: RMS or layer normalisation of each row, with optional weight and bias.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;

pub fn run(step: *const Step, op: *const plan.Norm, worker: *Worker) void {
    const width: usize = step.tensors[op.input].width;
    var phase = worker.phase(step.rows(op.input));
    while (phase.next()) |t| {
        const x = step.tensor(op.input)[t * width ..][0..width];
        const y = step.tensor(op.output)[t * width ..][0..width];
        var sum: f64 = 0;
        for (x) |v| sum += @as(f64, v) * v;
        const scale: f32 = @floatCast(1 / @sqrt(sum / @as(f64, @floatFromInt(width)) + op.epsilon));
        for (x, y, 0..) |v, *out, i| {
            out.* = v * scale * (if (step.vector(op.weight)) |w| w[i] else 1);
        }
    }
    worker.sync();
}
