//! adapter_scale: how much of an adapter each row gets. Rows without it become zeros, whatever
//! their values were, so that nothing of the adapter reaches them.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const rows_file = @import("rows.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;

pub fn run(step: *const Step, op: *const plan.AdapterScale, worker: *Worker) void {
    const tensor = step.tensors[op.output];
    const all = step.array(f32, step.data.adapter_scales);
    const scales = all + @as(usize, op.adapter) * step.header.max_tokens;
    const output_rows = step.array(u32, step.data.output_rows);
    var rows: rows_file.RowPhase = .of(step, op.output, worker);
    while (rows.next()) |range| {
        const first, const end = range;
        for (first..end) |r| {
            const scale = scales[if (tensor.rows == .outputs) output_rows[r] else r];
            const factor = scale * op.gain;
            for ((step.tensor(op.output) + r * tensor.width)[0..tensor.width]) |*value| {
                value.* = if (scale == 0) 0 else value.* * factor;
            }
        }
    }
}
