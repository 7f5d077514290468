//! add: output += scale * input.
const simd = @import("../simd.zig");
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const rows_file = @import("rows.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;

pub fn run(step: *const Step, op: *const plan.Add, worker: *Worker) void {
    const width = step.tensors[op.output].width;
    const scale: simd.Floats = @splat(op.scale);
    var rows: rows_file.RowPhase = .of(step, op.output, worker);
    while (rows.next()) |range| {
        const first, const end = range;
        const x = step.tensor(op.input) + first * width;
        const y = step.tensor(op.output) + first * width;
        var i: usize = 0;
        const total = (end - first) * width;
        while (i < total) : (i += 16) {
            const count = @min(16, total - i);
            const term = rows_file.loadUpTo(x + i, count) * scale;
            rows_file.storeUpTo(y + i, rows_file.loadUpTo(y + i, count) + term, count);
        }
    }
}
