//! gather_rows: copies the token rows whose logits are wanted.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;

pub fn run(step: *const Step, op: *const plan.GatherRows, worker: *Worker) void {
    const width: usize = step.tensors[op.input].width;
    const input = step.tensor(op.input);
    const output = step.tensor(op.output);
    const rows = step.array(u32, step.data.output_rows);

    var phase = worker.phase(step.data.num_outputs);
    while (phase.next()) |r| {
        const source = input[rows[r] * width ..][0..width];
        @memcpy(output[r * width ..][0..width], source);
    }
}
