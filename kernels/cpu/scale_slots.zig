//! scale_slots: each token's row once per slot, times the slot's routing weight, for models that
//! scale what their experts read.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;

pub fn run(step: *const Step, op: *const plan.ScaleSlots, worker: *Worker) void {
    const width = step.tensors[op.input].width;
    const num_slots = step.tensors[op.routing].width / 2;
    const routing = step.tensor(op.routing);
    var phase = worker.phase(step.rows(op.input));
    while (phase.next()) |t| {
        const source = step.tensor(op.input) + t * width;
        for (0..num_slots) |slot| {
            const factor = routing[(2 * t + 1) * num_slots + slot];
            const target = step.tensor(op.output) + (t * num_slots + slot) * width;
            for (target[0..width], source[0..width]) |*y, x| y.* = x * factor;
        }
    }
}
