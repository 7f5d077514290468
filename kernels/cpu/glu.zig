//! glu: gate and up combined value by value, where they are not made together (linear_glu.zig).
const simd = @import("../simd.zig");
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const rows_file = @import("rows.zig");
const activations = @import("activations.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;

pub fn run(step: *const Step, op: *const plan.Glu, worker: *Worker) void {
    const width: usize = step.tensors[op.output].width;
    const is_shared = step.tensors[op.gate_input].width == 1;
    var rows: rows_file.RowPhase = .of(step, op.output, worker);
    while (rows.next()) |range| {
        const first, const end = range;
        for (first..end) |row| {
            const up = step.tensor(op.up_input) + row * width;
            const gate = step.tensor(op.gate_input) + if (is_shared) row else row * width;
            const y = step.tensor(op.output) + row * width;
            var i: usize = 0;
            while (i < width) : (i += 16) {
                const count = @min(16, width - i);
                const g: simd.Floats =
                    if (is_shared) @splat(gate[0]) else rows_file.loadUpTo(gate + i, count);
                const u = rows_file.loadUpTo(up + i, count);
                rows_file.storeUpTo(y + i, activations.gated(op.activation, g, u), count);
            }
        }
    }
}
