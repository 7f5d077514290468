//! expert_glu: the gated half of the MLP of each token's experts. Work is shared as (expert,
//! columns), the experts with most rows first; untouched experts are never read.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const quant = @import("../quant/quant.zig");
const tile_gemm = @import("tile_gemm.zig");
const expert_inputs = @import("expert_inputs.zig");
const units_file = @import("expert_units.zig");
const Epilogue = @import("epilogue.zig").Epilogue;
const Slice = @import("slices.zig").Slice;
const Units = units_file.Units;
const Inputs = expert_inputs.Inputs;
const Layout = expert_inputs.Layout;
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;

const columns = tile_gemm.columns;

fn expertsOf(step: *const Step, first: u32, count: u32) []const plan.Weight {
    return step.weights[first..][0..count];
}

fn layoutOf(step: *const Step, op: *const plan.ExpertGlu) Layout {
    const gate = expertsOf(step, op.gate, op.num_experts);
    var layout: Layout = .init(step, op.input, step.numSlots(op.routing), gate);
    layout.add(gate);
    layout.add(expertsOf(step, op.up, op.num_experts));
    return layout;
}

pub fn scratchNeed(step: *const Step, op: *const plan.ExpertGlu) ScratchNeed {
    const layout = layoutOf(step, op);
    const kernel_bytes = expert_inputs.kernelBytes(&layout);
    return .{
        .shared_bytes = layout.sharedBytes(),
        .thread_bytes = layout.threadBytes() + 2 * units_file.valueBytes(&layout) + kernel_bytes,
    };
}

pub fn run(step: *const Step, op: *const plan.ExpertGlu, worker: *Worker) void {
    const layout = layoutOf(step, op);
    const rows = step.rows(op.input);
    const routing = step.tensor(op.routing);
    const x = step.tensor(op.input);
    const inputs: Inputs = .lay(&layout, step.scratch, worker, x, routing, rows);
    const own = worker.scratch[layout.threadBytes()..];
    const value_bytes = units_file.valueBytes(&layout);
    const values: [2][*]align(64) f32 = .{
        @ptrCast(@alignCast(own.ptr)),
        @ptrCast(@alignCast(own.ptr + value_bytes)),
    };
    const unit: Unit = .{
        .step = step,
        .op = op,
        .inputs = &inputs,
        .gate = expertsOf(step, op.gate, op.num_experts),
        .up = expertsOf(step, op.up, op.num_experts),
        .values = values,
        .kernel_memory = @alignCast(own[2 * value_bytes ..]),
    };
    const row_bytes = inputs.rowBytes(unit.gate[0]) + inputs.rowBytes(unit.up[0]);
    const units: Units = .of(&inputs, worker, unit.gate[0].rows, row_bytes);
    var sharing = units.share(worker);
    while (sharing.next()) |place| switch (place) {
        .panel => |panel| unit.runPanel(panel.expert, panel.first),
        .slice => |few| unit.runSlice(few.expert, few.slice),
    };
}

/// What a unit needs.
const Unit = struct {
    step: *const Step,
    op: *const plan.ExpertGlu,
    inputs: *const Inputs,
    gate: []const plan.Weight,
    up: []const plan.Weight,
    values: [2][*]align(64) f32,
    kernel_memory: []align(64) u8,

    fn runPanel(unit: *const Unit, i: usize, first: usize) void {
        const expert = unit.inputs.batches.experts[i];
        const n = @min(columns, unit.gate[0].rows - first);
        for ([_]plan.Weight{ unit.gate[expert], unit.up[expert] }, unit.values) |weight, values| {
            unit.inputs.multiplyPanel(i, weight, first, n, unit.kernel_memory, values);
        }
        unit.finish(i, 0, columns, first, n);
    }

    fn runSlice(unit: *const Unit, i: usize, slice: Slice) void {
        const expert = unit.inputs.batches.experts[i];
        const stride = 4 * slice.count;
        for ([_]plan.Weight{ unit.gate[expert], unit.up[expert] }, unit.values) |weight, values| {
            const weight_type = quant.fromId(weight.type).?;
            const span = unit.inputs.spanOf(weight, slice);
            unit.inputs.multiplyRows(i, weight_type, span, values, stride);
        }
        units_file.finishQuarters(unit, i, unit.inputs.spanOf(unit.gate[expert], slice));
    }

    /// Columns first..first + n of experts[i]'s rows, whose products begin at `start`.
    pub fn finish(
        unit: *const Unit,
        i: usize,
        start: usize,
        stride: usize,
        first: usize,
        n: usize,
    ) void {
        const op = unit.op;
        const expert = unit.inputs.batches.experts[i];
        const epilogue: Epilogue = .{
            .kind = .gated,
            .output = unit.step.tensor(op.output),
            .width = unit.gate[0].rows,
            .gain = unit.gate[expert].gain,
            .bias = biasOf(unit.step, op.gate_bias, expert),
            .activation = op.activation,
            .up_gain = unit.up[expert].gain,
            .up_bias = biasOf(unit.step, op.up_bias, expert),
        };
        for (unit.inputs.batches.pairsOf(i), 0..) |pair, row| {
            const at = start + row * stride;
            const values = unit.values;
            epilogue.apply(values[0] + at, values[1] + at, stride, pair, 1, first, n);
        }
    }
};

fn biasOf(step: *const Step, id: u32, expert: u32) ?[*]const f32 {
    const biases = step.vector(id) orelse return null;
    return biases + @as(usize, expert) * step.weights[id].cols;
}
