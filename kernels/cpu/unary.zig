//! unary: output = function(output), value by value.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const rows_file = @import("rows.zig");
const activations = @import("activations.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;

pub fn run(step: *const Step, op: *const plan.Unary, worker: *Worker) void {
    const width = step.tensors[op.output].width;
    var rows: rows_file.RowPhase = .of(step, op.output, worker);
    while (rows.next()) |range| {
        const first, const end = range;
        const y = step.tensor(op.output) + first * width;
        var i: usize = 0;
        const total = (end - first) * width;
        while (i < total) : (i += 16) {
            const count = @min(16, total - i);
            const x = rows_file.loadUpTo(y + i, count);
            rows_file.storeUpTo(y + i, activations.apply(op.function, x, op.parameter), count);
        }
    }
}
