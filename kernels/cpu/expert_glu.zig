//! expert_glu: the gated half of the MLP of each token's experts. Work is shared as (expert,
//! columns), the experts with most rows first; untouched experts are never read.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const quant = @import("../quant/quant.zig");
const tile_gemm = @import("tile_gemm.zig");
const rounds_file = @import("rounds.zig");
const expert_inputs = @import("expert_inputs.zig");
const Tuning = @import("../tuning.zig").Tuning;
const Epilogue = @import("epilogue.zig").Epilogue;
const Rounds = rounds_file.Rounds;
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
    var layout: Layout = .init(step, op.input, op.routing, gate);
    layout.add(gate);
    layout.add(expertsOf(step, op.up, op.num_experts));
    return layout;
}

/// Bytes of one product of a unit: panels of an expert's rows, or few rows of quarters.
fn valueBytes(layout: *const Layout) usize {
    const max_rows = layout.limits.max_rows;
    const rows = tile_gemm.numPanels(max_rows) * tile_gemm.panel_rows;
    const few: usize = @min(max_rows, Tuning.max_rows_regime);
    return @max(rows * columns, few * 4 * rounds_file.max_quarter_rows) * @sizeOf(f32);
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
    const unit: Unit = .{
        .step = step,
        .op = op,
        .inputs = &inputs,
        .gate = expertsOf(step, op.gate, op.num_experts),
        .up = expertsOf(step, op.up, op.num_experts),
        .values = values,
        .kernel_memory = @alignCast(own[2 * value_bytes ..]),
    };
    const units: Units = .of(&inputs, worker, unit.gate[0], unit.up[0]);
    var phase = worker.phase(@intCast(units.count()));
    while (phase.next()) |index| switch (units.at(index)) {
        .panel => |panel| unit.runPanel(panel.expert, panel.first),
        .slice => |few| unit.runSlice(few.expert, few.slice),
    };
}

/// How the work is cut: tiled experts in panels, then the others in slices, of which only those of
/// the last expert become short.
const Units = struct {
    num_tiled: usize,
    num_experts: usize,
    panels_each: usize,
    /// Of an expert with few rows that is not the last, and of the last.
    middle: Rounds,
    last: Rounds,

    const Place = union(enum) {
        panel: struct { expert: usize, first: usize },
        slice: struct { expert: usize, slice: rounds_file.Slice },
    };

    fn of(inputs: *const Inputs, worker: *const Worker, gate: plan.Weight, up: plan.Weight) Units {
        const batches = &inputs.batches;
        const num_tiled = batches.num_tiled;
        const is_few = num_tiled < batches.experts.len;
        const rows = if (is_few) batches.pairsOf(num_tiled).len else 1;
        const row_bytes = inputs.rowBytes(gate) + inputs.rowBytes(up);
        const tuning = &worker.shared.tuning;
        const last: Rounds = .of(tuning, worker.count, gate.rows, rows, row_bytes);
        return .{
            .num_tiled = num_tiled,
            .num_experts = batches.experts.len,
            .panels_each = (gate.rows + columns - 1) / columns,
            .middle = last.withoutEnd(),
            .last = last,
        };
    }

    fn count(units: *const Units) usize {
        const tiled = units.num_tiled * units.panels_each;
        const num_few = units.num_experts - units.num_tiled;
        if (num_few == 0) return tiled;
        return tiled + (num_few - 1) * units.middle.numUnits() + units.last.numUnits();
    }

    fn at(units: *const Units, index: usize) Place {
        const tiled = units.num_tiled * units.panels_each;
        if (index < tiled) return .{ .panel = .{
            .expert = index / units.panels_each,
            .first = index % units.panels_each * columns,
        } };
        const each = units.middle.numUnits();
        const expert = @min(units.num_tiled + (index - tiled) / each, units.num_experts - 1);
        const left = index - tiled - (expert - units.num_tiled) * each;
        const rounds = if (expert + 1 < units.num_experts) units.middle else units.last;
        return .{ .slice = .{ .expert = expert, .slice = rounds.at(left).? } };
    }
};

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

    fn runSlice(unit: *const Unit, i: usize, slice: rounds_file.Slice) void {
        const expert = unit.inputs.batches.experts[i];
        const stride = 4 * slice.count;
        for ([_]plan.Weight{ unit.gate[expert], unit.up[expert] }, unit.values) |weight, values| {
            const weight_type = quant.fromId(weight.type).?;
            const span = unit.inputs.spanOf(weight, slice);
            unit.inputs.multiplyRows(i, weight_type, span, values, stride);
        }
        const span = unit.inputs.spanOf(unit.gate[expert], slice);
        const quarter_rows = @TypeOf(span).quarterRows(span.num_rows);
        for (0..4) |quarter| {
            const first = quarter * quarter_rows + slice.first;
            unit.finish(i, quarter * slice.count, stride, first, span.countIn(quarter));
        }
    }

    /// Columns first..first + n of experts[i]'s rows, whose products begin at `start`.
    fn finish(
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
            .bias = biasOf(unit.step, op.gate_bias, expert),
            .activation = op.activation,
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
