//! position_scale: a factor on each row that grows with the logarithm of its position.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const rows_file = @import("rows.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;

pub fn run(step: *const Step, op: *const plan.PositionScale, worker: *Worker) void {
    const width = step.tensors[op.output].width;
    const positions = step.array(i32, step.data.positions);
    var rows: rows_file.RowPhase = .of(step, op.output, worker);
    while (rows.next()) |range| {
        const first, const end = range;
        for (first..end) |t| {
            const position: u32 = @intCast(positions[t]);
            const interval: f64 = @floatFromInt((position + op.offset) / op.interval);
            const scale: f32 = @floatCast(1 + @as(f64, op.factor) * @log(1 + interval));
            if (scale == 1) continue;
            for ((step.tensor(op.output) + t * width)[0..width]) |*value| value.* *= scale;
        }
    }
}
