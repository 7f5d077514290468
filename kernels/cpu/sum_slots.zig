//! sum_slots: the weighted sum of what each token's slots hold, in slot order and with the chain of
//! operations of expert_linear.zig, so that a sum made apart has the same bits.
const simd = @import("../simd.zig");
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const rows_file = @import("rows.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;

pub fn run(step: *const Step, op: *const plan.SumSlots, worker: *Worker) void {
    const width: usize = step.tensors[op.output].width;
    const num_slots = step.numSlots(op.routing);
    var rows: rows_file.RowPhase = .of(step, op.input, worker);
    while (rows.next()) |range| {
        const first, const end = range;
        for (first..end) |t| {
            const weights = step.tensor(op.routing) + (2 * t + 1) * num_slots;
            const source = step.tensor(op.input) + t * num_slots * width;
            const target = step.tensor(op.output) + t * width;
            var i: usize = 0;
            while (i < width) : (i += 16) {
                const count = @min(16, width - i);
                var total: simd.Floats = @splat(0);
                for (0..num_slots) |slot| {
                    const v = rows_file.loadUpTo(source + slot * width + i, count);
                    const weight = if (op.is_weighted != 0) weights[slot] else 1;
                    total = simd.fma(simd.Floats, v, @splat(weight), total);
                }
                if (op.epilogue == .accumulate) {
                    total = rows_file.loadUpTo(target + i, count) + total;
                }
                rows_file.storeUpTo(target + i, total, count);
            }
        }
    }
}
