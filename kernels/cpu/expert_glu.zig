//! expert_glu: the gated half of the MLP of each token's experts. Gate and up columns of the same
//! index are one unit, so neither is ever stored.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const Products = @import("expert_products.zig").Products;
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;

fn productsOf(op: *const plan.ExpertGlu) Products {
    return .{
        .input = op.input,
        .routing = op.routing,
        .weights = .{ op.gate, op.up },
        .biases = .{ op.gate_bias, op.up_bias },
        .num_weights = 2,
        .num_experts = op.num_experts,
        .output = op.output,
        .kind = .gated,
        .activation = op.activation,
    };
}

pub fn run(step: *const Step, op: *const plan.ExpertGlu, worker: *Worker) void {
    productsOf(op).run(step, worker);
}

pub fn scratchNeed(step: *const Step, op: *const plan.ExpertGlu) ScratchNeed {
    return productsOf(op).scratchNeed(step);
}
