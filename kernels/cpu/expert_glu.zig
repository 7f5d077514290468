//! expert_glu: the gated half of the MLP of each token's experts. Work is shared as (expert,
//! columns), the experts with most rows first; untouched experts are never read.
const std = @import("std");
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const tile_gemm = @import("tile_gemm.zig");
const expert_inputs = @import("expert_inputs.zig");
const Epilogue = @import("epilogue.zig").Epilogue;
const Inputs = expert_inputs.Inputs;
const Layout = expert_inputs.Layout;
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;

/// Columns of a unit of either regime.
const columns = tile_gemm.columns;

fn expertsOf(step: *const Step, first: u32, count: u32) []const plan.Weight {
    return step.weights[first..][0..count];
}

fn layoutOf(step: *const Step, op: *const plan.ExpertGlu) Layout {
    const gate = expertsOf(step, op.gate, op.num_experts);
    var layout: Layout = .init(step, op.input, op.routing, gate);
    layout.add(gate);
    layout.add(expertsOf(step, op.up, op.num_experts));
    return layout;
}

/// Bytes of one product of a unit: the rows of an expert, up to whole panels.
fn valueBytes(layout: *const Layout) usize {
    const rows = tile_gemm.numPanels(layout.limits.max_rows) * tile_gemm.panel_rows;
    return rows * columns * @sizeOf(f32);
}

pub fn scratchNeed(step: *const Step, op: *const plan.ExpertGlu) ScratchNeed {
    const layout = layoutOf(step, op);
    const kernel_bytes = expert_inputs.kernelBytes(&layout);
    return .{
        .shared_bytes = layout.sharedBytes(),
        .thread_bytes = layout.threadBytes() + 2 * valueBytes(&layout) + kernel_bytes,
    };
}

pub fn run(step: *const Step, op: *const plan.ExpertGlu, worker: *Worker) void {
    const layout = layoutOf(step, op);
    const rows = step.rows(op.input);
    const routing = step.tensor(op.routing);
    const x = step.tensor(op.input);
    const inputs: Inputs = .lay(&layout, step.scratch, worker, x, routing, rows);
    const own = worker.scratch[layout.threadBytes()..];
    const value_bytes = valueBytes(&layout);
    const values: [2][*]align(64) f32 = .{
        @ptrCast(@alignCast(own.ptr)),
        @ptrCast(@alignCast(own.ptr + value_bytes)),
    };
    const kernel_memory: []align(64) u8 = @alignCast(own[2 * value_bytes ..]);
    const gate = expertsOf(step, op.gate, op.num_experts);
    const up = expertsOf(step, op.up, op.num_experts);
    const width = gate[0].rows;
    const units_each = (width + columns - 1) / columns;
    var phase = worker.phase(@intCast(inputs.batches.experts.len * units_each));
    while (phase.next()) |unit| {
        const i = unit / units_each;
        const expert = inputs.batches.experts[i];
        const first = unit % units_each * columns;
        const n = @min(columns, width - first);
        inputs.multiply(i, gate[expert], first, n, kernel_memory, values[0], columns);
        inputs.multiply(i, up[expert], first, n, kernel_memory, values[1], columns);
        const epilogue: Epilogue = .{
            .kind = .gated,
            .output = step.tensor(op.output),
            .width = width,
            .bias = biasOf(step, op.gate_bias, expert),
            .activation = op.activation,
            .up_bias = biasOf(step, op.up_bias, expert),
        };
        for (inputs.batches.pairsOf(i), 0..) |pair, row| {
            const at = row * columns;
            epilogue.apply(values[0] + at, values[1] + at, columns, pair, 1, first, n);
        }
    }
}

fn biasOf(step: *const Step, id: u32, expert: u32) ?[*]const f32 {
    const biases = step.vector(id) orelse return null;
    return biases + @as(usize, expert) * step.weights[id].cols;
}
