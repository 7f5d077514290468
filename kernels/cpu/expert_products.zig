//! Products of each slot's row, or its token's, with the matrix of the slot's expert, or with two
//! whose results are combined. Work is shared as (expert, columns), the experts with most rows
//! first; untouched experts are never read.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const quant = @import("../quant/quant.zig");
const matvec = @import("matvec.zig");
const tile_gemm = @import("tile_gemm.zig");
const slices_file = @import("slices.zig");
const expert_inputs = @import("expert_inputs.zig");
const Epilogue = @import("epilogue.zig").Epilogue;
const Tuning = @import("../tuning.zig").Tuning;
const Units = @import("expert_units.zig").Units;
const Slice = slices_file.Slice;
const Inputs = expert_inputs.Inputs;
const Layout = expert_inputs.Layout;
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;

const columns = tile_gemm.columns;

/// All products of one op.
pub const Products = struct {
    input: u32,
    /// `none`: slot s goes to expert s.
    routing: u32,
    /// The first of `num_experts` matrices; the second one is up where the first is gate.
    weights: [2]u32,
    /// F32 `[num_experts, width]` or `none`.
    biases: [2]u32,
    num_weights: u32,
    num_experts: u32,
    output: u32,
    kind: Epilogue.Kind,
    activation: plan.Gate = .silu,

    fn expertsOf(products: *const Products, step: *const Step, i: usize) []const plan.Weight {
        return step.weights[products.weights[i]..][0..products.num_experts];
    }

    fn layoutOf(products: *const Products, step: *const Step) Layout {
        const num_slots = if (products.routing == plan.none)
            products.num_experts
        else
            step.numSlots(products.routing);
        var layout: Layout = .init(step, products.input, num_slots, products.expertsOf(step, 0));
        for (0..products.num_weights) |i| layout.groups.add(products.expertsOf(step, i));
        return layout;
    }

    pub fn scratchNeed(products: *const Products, step: *const Step) ScratchNeed {
        const layout = products.layoutOf(step);
        const value_bytes = products.num_weights * valueBytes(&layout);
        const kernel_bytes = layout.kernelBytes();
        return .{
            .shared_bytes = layout.sharedBytes(),
            .thread_bytes = layout.threadBytes() + value_bytes + kernel_bytes,
        };
    }

    /// Runs all products; every thread calls it with the same arguments.
    pub fn run(products: *const Products, step: *const Step, worker: *Worker) void {
        const layout = products.layoutOf(step);
        const rows = step.rows(products.input);
        const x = step.tensor(products.input);
        const routing = if (products.routing == plan.none) null else step.tensor(products.routing);
        const inputs: Inputs = .lay(&layout, step.scratch, worker, x, routing, rows);
        const own = worker.scratch[layout.threadBytes()..];
        const value_bytes = valueBytes(&layout);
        var unit: Unit = .{
            .inputs = &inputs,
            .num_weights = products.num_weights,
            .values = .{
                @ptrCast(@alignCast(own.ptr)),
                @ptrCast(@alignCast(own.ptr + value_bytes)),
            },
            .kernel_memory = @alignCast(own[products.num_weights * value_bytes ..]),
            .epilogue = .{
                .kind = products.kind,
                .output = step.tensor(products.output),
                .width = products.expertsOf(step, 0)[0].rows,
                .gain = undefined,
                .activation = products.activation,
            },
        };
        var row_bytes: usize = 0;
        for (0..products.num_weights) |i| {
            unit.weights[i] = products.expertsOf(step, i);
            unit.biases[i] = step.vector(products.biases[i]);
            row_bytes += inputs.rowBytes(unit.weights[i][0]);
        }
        const units: Units = .of(&inputs, worker, unit.weights[0..unit.num_weights], row_bytes);
        var sharing = units.share(worker);
        while (sharing.next()) |place| switch (place) {
            .panel => |panel| unit.runPanel(panel.expert, panel.first),
            .slice => |few| unit.runSlice(few.expert, few.slice),
        };
    }
};

/// Bytes of one product of a unit: panels of an expert's rows, or few rows of quarters.
fn valueBytes(layout: *const Layout) usize {
    const max_rows = layout.limits.max_rows;
    const rows = tile_gemm.numPanels(max_rows) * tile_gemm.panel_rows;
    const few: usize = @min(max_rows, Tuning.max_rows_regime);
    return @max(rows * columns, few * 4 * slices_file.max_quarter_rows) * @sizeOf(f32);
}

/// What a unit needs. `i` counts the experts as `Batches` has sorted them.
const Unit = struct {
    inputs: *const Inputs,
    weights: [2][]const plan.Weight = undefined,
    biases: [2]?[*]const f32 = undefined,
    num_weights: usize,
    values: [2][*]align(64) f32,
    kernel_memory: []align(64) u8,
    /// But for gains and biases, which are each expert's own.
    epilogue: Epilogue,

    fn runPanel(unit: *const Unit, i: usize, first: usize) void {
        const expert = unit.inputs.batches.experts[i];
        const n = @min(columns, unit.epilogue.width - first);
        for (0..unit.num_weights) |w| {
            const weight = unit.weights[w][expert];
            unit.inputs.multiplyPanel(i, weight, first, n, unit.kernel_memory, unit.values[w]);
        }
        unit.finish(i, 0, columns, first, n);
    }

    fn runSlice(unit: *const Unit, i: usize, slice: Slice) void {
        const expert = unit.inputs.batches.experts[i];
        const stride = slice.parts * slice.count;
        var targets: [2]matvec.Target = undefined;
        for (targets[0..unit.num_weights], 0..) |*target, w| target.* = .{
            .span = unit.inputs.spanOf(unit.weights[w][expert], slice),
            .out = unit.values[w],
        };
        const at_once: usize = if (slice.together) 2 else 1;
        var w: usize = 0;
        while (w < unit.num_weights) : (w += at_once) {
            const weight_type = quant.fromId(unit.weights[w][expert].type).?;
            unit.inputs.multiplyRows(i, weight_type, targets[w..][0..at_once], stride);
        }
        const span = &targets[0].span;
        for (0..slice.parts) |part| {
            const first = span.firstOf(part);
            unit.finish(i, part * slice.count, stride, first, span.countIn(part));
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
        const expert = unit.inputs.batches.experts[i];
        var epilogue = unit.epilogue;
        epilogue.gain = unit.weights[0][expert].gain;
        epilogue.bias = unit.biasOf(0, expert);
        if (unit.num_weights == 2) {
            epilogue.up_gain = unit.weights[1][expert].gain;
            epilogue.up_bias = unit.biasOf(1, expert);
        }
        for (unit.inputs.batches.pairsOf(i), 0..) |pair, row| {
            const at = start + row * stride;
            const values = unit.values;
            epilogue.apply(values[0] + at, values[1] + at, stride, pair, 1, first, n);
        }
    }

    fn biasOf(unit: *const Unit, w: usize, expert: usize) ?[*]const f32 {
        const biases = unit.biases[w] orelse return null;
        return biases + expert * unit.epilogue.width;
    }
};
