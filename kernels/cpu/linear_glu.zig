//! linear_glu: activation(x · gateᵀ + gate_bias) * (x · upᵀ + up_bias), x = norm(input): the gated
//! half of an MLP. Gate and up columns of the same index are one unit, so neither is ever stored.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const product = @import("product.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;

pub fn run(step: *const Step, op: *const plan.LinearGlu, worker: *Worker) void {
    const gate = step.weights[op.gate];
    const up = step.weights[op.up];
    const gated = [1]product.Product{.{
        .weights = .{ gate, up },
        .num_weights = 2,
        .epilogue = .{
            .kind = .gated,
            .output = step.tensor(op.output),
            .width = gate.rows,
            .gain = gate.gain,
            .bias = step.vector(op.gate_bias),
            .activation = op.activation,
            .up_gain = up.gain,
            .up_bias = step.vector(op.up_bias),
        },
    }};
    const input: product.Input = .of(step, op.input, &op.norm);
    product.run(step.scratch, worker, input, &gated);
}

pub fn scratchNeed(step: *const Step, op: *const plan.LinearGlu) ScratchNeed {
    const weights = [2]plan.Weight{ step.weights[op.gate], step.weights[op.up] };
    return product.scratchNeed(step, op.input, &op.norm, &weights);
}
