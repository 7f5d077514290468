//! slot_linear: each slot's part of a row, or the row itself, times a matrix of the slot's own: that
//! of its expert, or of its head. All are one phase: to the machinery of experts a head is a slot
//! that always goes to the same matrix.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const quant = @import("../quant/quant.zig");
const tile_gemm = @import("tile_gemm.zig");
const expert_inputs = @import("expert_inputs.zig");
const units_file = @import("expert_units.zig");
const Epilogue = @import("epilogue.zig").Epilogue;
const Slice = @import("slices.zig").Slice;
const Inputs = expert_inputs.Inputs;
const Layout = expert_inputs.Layout;
const Units = units_file.Units;
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;

const columns = tile_gemm.columns;

fn matricesOf(step: *const Step, op: *const plan.SlotLinear) []const plan.Weight {
    return step.weights[op.weight..][0..op.num_matrices];
}

fn layoutOf(step: *const Step, op: *const plan.SlotLinear) Layout {
    const matrices = matricesOf(step, op);
    const routing = op.slot_routing;
    const num_slots = if (routing == plan.none) matrices.len else step.numSlots(routing);
    var layout: Layout = .init(step, op.input, num_slots, matrices);
    layout.add(matrices);
    return layout;
}

pub fn scratchNeed(step: *const Step, op: *const plan.SlotLinear) ScratchNeed {
    const layout = layoutOf(step, op);
    const kernel_bytes = expert_inputs.kernelBytes(&layout);
    return .{
        .shared_bytes = layout.sharedBytes(),
        .thread_bytes = layout.threadBytes() + units_file.valueBytes(&layout) + kernel_bytes,
    };
}

pub fn run(step: *const Step, op: *const plan.SlotLinear, worker: *Worker) void {
    const layout = layoutOf(step, op);
    const rows = step.rows(op.input);
    const x = step.tensor(op.input);
    const routing = if (op.slot_routing == plan.none) null else step.tensor(op.slot_routing);
    const inputs: Inputs = .lay(&layout, step.scratch, worker, x, routing, rows);
    const own = worker.scratch[layout.threadBytes()..];
    const matrices = matricesOf(step, op);
    const width = matrices[0].rows;
    const unit: Unit = .{
        .inputs = &inputs,
        .matrices = matrices,
        .values = @ptrCast(@alignCast(own.ptr)),
        .kernel_memory = @alignCast(own[units_file.valueBytes(&layout)..]),
        .biases = step.vector(op.bias),
        .kind = if (op.epilogue == .accumulate) .accumulate else .store,
        .output = step.tensor(op.output),
    };
    const units: Units = .of(&inputs, worker, width, inputs.rowBytes(matrices[0]));
    var sharing = units.share(worker);
    while (sharing.next()) |place| switch (place) {
        .panel => |panel| unit.runPanel(panel.expert, panel.first),
        .slice => |few| unit.runSlice(few.expert, few.slice),
    };
}

/// What a unit needs. `i` counts the matrices as `Batches` has sorted them.
const Unit = struct {
    inputs: *const Inputs,
    matrices: []const plan.Weight,
    values: [*]align(64) f32,
    kernel_memory: []align(64) u8,
    /// `[num_matrices, width]`
    biases: ?[*]const f32,
    kind: Epilogue.Kind,
    output: [*]f32,

    fn runPanel(unit: *const Unit, i: usize, first: usize) void {
        const weight = unit.matrices[unit.inputs.batches.experts[i]];
        const n = @min(columns, weight.rows - first);
        unit.inputs.multiplyPanel(i, weight, first, n, unit.kernel_memory, unit.values);
        unit.finish(i, 0, columns, first, n);
    }

    fn runSlice(unit: *const Unit, i: usize, slice: Slice) void {
        const weight = unit.matrices[unit.inputs.batches.experts[i]];
        const span = unit.inputs.spanOf(weight, slice);
        const weight_type = quant.fromId(weight.type).?;
        unit.inputs.multiplyRows(i, weight_type, span, unit.values, 4 * slice.count);
        units_file.finishQuarters(unit, i, span);
    }

    /// Columns first..first + n of the matrix' rows, whose products begin at `start`.
    pub fn finish(
        unit: *const Unit,
        i: usize,
        start: usize,
        stride: usize,
        first: usize,
        n: usize,
    ) void {
        const index: usize = unit.inputs.batches.experts[i];
        const matrix = unit.matrices[index];
        const epilogue: Epilogue = .{
            .kind = unit.kind,
            .output = unit.output,
            .width = matrix.rows,
            .gain = matrix.gain,
            .bias = if (unit.biases) |biases| biases + index * matrix.rows else null,
        };
        for (unit.inputs.batches.pairsOf(i), 0..) |pair, row| {
            const values = unit.values + start + row * stride;
            epilogue.apply(values, undefined, stride, pair, 1, first, n);
        }
    }
};
