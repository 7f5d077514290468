//! embed: the scaled, dequantised table row of each token, of its position, or the first.
const plan = @import("../plan.zig");
const interleave = @import("../interleave.zig");
const Scales = @import("../quant/scales.zig").Scales;
const worker_file = @import("../worker.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;

pub fn run(step: *const Step, op: *const plan.Embed, worker: *Worker) void {
    const weight = step.weights[op.weight];
    const token_ids = step.array(i32, step.data.token_ids);
    const positions = step.array(i32, step.data.positions);
    const output = step.tensor(op.output);
    const scales: Scales = .of(&weight);

    var phase = worker.phase(step.rows(op.output));
    while (phase.next()) |t| {
        const row: u64 = switch (op.row) {
            .token => @intCast(token_ids[t]),
            .position => @intCast(positions[t]),
            .first => 0,
        };
        const target = output[@as(usize, t) * weight.cols ..][0..weight.cols];
        interleave.dequantizeRow(&weight, row, target);
        if (weight.scales != plan.none) scales.ofRow(row).multiply(target);
        if (op.scale != 1) for (target) |*value| {
            value.* *= op.scale;
        };
    }
}
