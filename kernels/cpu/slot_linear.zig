//! slot_linear: each slot's part of a row, or the row itself, times a matrix of the slot's own: that
//! of its expert, or of its head. All are one phase: to the machinery of experts a head is a slot
//! that always goes to the same matrix.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const Products = @import("expert_products.zig").Products;
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;

fn productsOf(op: *const plan.SlotLinear) Products {
    return .{
        .input = op.input,
        .routing = op.slot_routing,
        .weights = .{ op.weight, plan.none },
        .biases = .{ op.bias, plan.none },
        .num_weights = 1,
        .num_experts = op.num_matrices,
        .output = op.output,
        .kind = if (op.epilogue == .accumulate) .accumulate else .store,
    };
}

pub fn run(step: *const Step, op: *const plan.SlotLinear, worker: *Worker) void {
    productsOf(op).run(step, worker);
}

pub fn scratchNeed(step: *const Step, op: *const plan.SlotLinear) ScratchNeed {
    return productsOf(op).scratchNeed(step);
}
