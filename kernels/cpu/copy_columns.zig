//! copy_columns: parts of each row from one tensor to another, for slices and concatenations.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const rows_file = @import("rows.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;

pub fn run(step: *const Step, op: *const plan.CopyColumns, worker: *Worker) void {
    const input_width = step.tensors[op.input].width;
    const output_width = step.tensors[op.output].width;
    var rows: rows_file.RowPhase = .of(step, op.output, worker);
    while (rows.next()) |range| {
        const first, const end = range;
        for (first..end) |row| {
            const x = step.tensor(op.input) + row * input_width + op.input_start;
            const y = step.tensor(op.output) + row * output_width + op.output_start;
            for (0..op.count) |i| {
                @memcpy((y + i * op.output_stride)[0..op.width], x + i * op.input_stride);
            }
        }
    }
}
