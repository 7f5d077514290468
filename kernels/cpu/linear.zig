//! linear: outputs[i] (+)= norm(input) · weights[i]ᵀ + biases[i] for matrices that share an input.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const product = @import("product.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;

pub fn run(step: *const Step, op: *const plan.Linear, worker: *Worker) void {
    var products: [plan.max_linear_outputs]product.Product = undefined;
    for (op.outputs[0..op.num_outputs], products[0..op.num_outputs]) |out, *entry| {
        const weight = step.weights[out.weight];
        entry.* = .{
            .weights = .{ weight, undefined },
            .num_weights = 1,
            .epilogue = .{
                .kind = if (op.epilogue == .accumulate) .accumulate else .store,
                .output = step.tensor(out.output),
                .width = weight.rows,
                .gain = weight.gain,
                .bias = step.vector(out.bias),
            },
        };
    }
    const input: product.Input = .of(step, op.input, &op.norm);
    product.run(step.scratch, worker, input, products[0..op.num_outputs]);
}

pub fn scratchNeed(step: *const Step, op: *const plan.Linear) ScratchNeed {
    var weights: [plan.max_linear_outputs]plan.Weight = undefined;
    for (op.outputs[0..op.num_outputs], 0..) |out, i| weights[i] = step.weights[out.weight];
    return product.scratchNeed(step, op.input, &op.norm, weights[0..op.num_outputs]);
}
