//! linear_heads: each head's part of a row times a matrix of its own.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const product = @import("product.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;

pub fn run(step: *const Step, op: *const plan.LinearHeads, worker: *Worker) void {
    const shape = step.weights[op.weight];
    for (0..op.num_heads) |head| {
        // Heads use the same memory one after another.
        if (head > 0) worker.sync();
        const one = [1]product.Product{.{
            .weights = .{ step.weights[op.weight + head], undefined },
            .num_weights = 1,
            .epilogue = .{
                .kind = .store,
                .output = step.tensor(op.output) + head * shape.rows,
                .width = op.num_heads * shape.rows,
            },
        }};
        const input: product.Input = .{
            .x = step.tensor(op.input) + head * shape.cols,
            .rows = step.rows(op.input),
            .k = shape.cols,
            .stride = op.num_heads * shape.cols,
        };
        product.run(step.scratch, worker, input, &one);
    }
}

pub fn scratchNeed(step: *const Step, op: *const plan.LinearHeads) ScratchNeed {
    const weights = step.weights[op.weight..][0..op.num_heads];
    return product.scratchNeedOf(step, op.input, weights[0].cols, true, weights);
}
