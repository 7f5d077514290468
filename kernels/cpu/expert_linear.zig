//! expert_linear: the down projections of each token's experts and their weighted sum. A unit is
//! some columns of all experts, so that the sum of a token's slots is made in slot order where
//! the products are, with nothing stored between.
const std = @import("std");
const simd = @import("../simd.zig");
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const quant = @import("../quant/quant.zig");
const tile_gemm = @import("tile_gemm.zig");
const slices_file = @import("slices.zig");
const rows_file = @import("rows.zig");
const expert_inputs = @import("expert_inputs.zig");
const Slices = slices_file.Slices;
const Inputs = expert_inputs.Inputs;
const Layout = expert_inputs.Layout;
const Floats = simd.Floats;
const loadUpTo = rows_file.loadUpTo;
const storeUpTo = rows_file.storeUpTo;
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;

fn layoutOf(step: *const Step, op: *const plan.ExpertLinear) Layout {
    const experts = step.weights[op.weight..][0..op.num_experts];
    var layout: Layout = .init(step, op.input, step.numSlots(op.routing), experts);
    layout.groups.add(experts);
    return layout;
}

/// Floats of a unit's products: whole panels of every expert, or slices of few pairs, or the
/// shortest of all.
fn maxValues(layout: *const Layout) usize {
    const places = layout.limits.maxPanels() * tile_gemm.panel_rows;
    const pairs = layout.limits.maxPairs();
    const few: usize = @min(pairs, most_sliced_pairs);
    const sliced = @max(few * 4 * slices_file.max_quarter_rows, pairs * 4 * slices_file.panel_rows);
    return @max(places * tile_gemm.columns, sliced);
}
fn valueBytes(layout: *const Layout) usize {
    return maxValues(layout) * @sizeOf(f32);
}
/// So many pairs have room for the longest slices; more take shorter ones.
const most_sliced_pairs = 32;

fn placeBytes(layout: *const Layout) usize {
    return std.mem.alignForward(usize, layout.limits.maxPairs() * @sizeOf(u32), 64);
}

pub fn scratchNeed(step: *const Step, op: *const plan.ExpertLinear) ScratchNeed {
    const layout = layoutOf(step, op);
    const kernel_bytes = layout.kernelBytes();
    const own_bytes = placeBytes(&layout) + valueBytes(&layout) + kernel_bytes;
    return .{
        .shared_bytes = layout.sharedBytes(),
        .thread_bytes = layout.threadBytes() + own_bytes,
    };
}

pub fn run(step: *const Step, op: *const plan.ExpertLinear, worker: *Worker) void {
    const layout = layoutOf(step, op);
    const rows = step.rows(op.input);
    const routing = step.tensor(op.routing);
    const x = step.tensor(op.input);
    const inputs: Inputs = .lay(&layout, step.scratch, worker, x, routing, rows);
    const own = worker.scratch[layout.threadBytes()..];
    const place_memory: [*]u32 = @ptrCast(@alignCast(own.ptr));
    const places = place_memory[0 .. rows * layout.limits.num_slots];
    const values: [*]align(64) f32 = @ptrCast(@alignCast(own.ptr + placeBytes(&layout)));
    const kernel_start = placeBytes(&layout) + valueBytes(&layout);
    const kernel_memory: []align(64) u8 = @alignCast(own[kernel_start..]);
    findPlaces(&inputs, places);
    const experts = step.weights[op.weight..][0..op.num_experts];
    const sum: Sum = .{
        .op = op,
        .num_slots = layout.limits.num_slots,
        .routing = routing,
        .experts = experts,
        .biases = step.vector(op.bias),
        .output = step.tensor(op.output),
        .width = experts[0].rows,
    };
    const unit: Unit = .{
        .inputs = &inputs,
        .experts = experts,
        .places = places,
        .values = values,
        .kernel_memory = kernel_memory,
        .sum = &sum,
        .rows = rows,
    };
    if (inputs.batches.num_tiled > 0) unit.runPanels(worker) else {
        unit.runSlices(worker, maxValues(&layout));
    }
}

/// What a unit needs.
const Unit = struct {
    inputs: *const Inputs,
    experts: []const plan.Weight,
    places: []const u32,
    values: [*]align(64) f32,
    kernel_memory: []align(64) u8,
    sum: *const Sum,
    rows: usize,

    fn runPanels(unit: *const Unit, worker: *Worker) void {
        const columns = tile_gemm.columns;
        const width = unit.sum.width;
        var phase = worker.phase(@intCast((width + columns - 1) / columns));
        while (phase.next()) |index| {
            const first = index * columns;
            const n = @min(columns, width - first);
            for (unit.inputs.batches.experts, 0..) |expert, i| {
                const weight = unit.experts[expert];
                const out = unit.values + unit.firstPlace(i) * columns;
                const memory = unit.kernel_memory;
                unit.inputs.multiplyPanel(i, weight, first, n, memory, @alignCast(out));
            }
            unit.finish(0, columns, first, n);
        }
    }

    fn runSlices(unit: *const Unit, worker: *Worker, max_values: usize) void {
        const batches = &unit.inputs.batches;
        if (batches.experts.len == 0) return;
        const row_bytes = unit.inputs.rowBytes(unit.experts[0]);
        const most_rows = batches.pairsOf(0).len;
        var slices: Slices = .of(&worker.shared.tuning, &.{unit.experts}, .of(most_rows), row_bytes);
        const longest = max_values / (slices.parts * batches.pairs.len);
        slices.limit(longest);
        var phase = worker.phase(@intCast(slices.count()));
        while (phase.nextRun(slices.most)) |units| {
            const slice = slices.at(units.begin, units.end);
            const stride = slice.parts * slice.count;
            for (batches.experts, 0..) |expert, i| {
                const weight = unit.experts[expert];
                const weight_type = quant.fromId(weight.type).?;
                const span = unit.inputs.spanOf(weight, slice);
                const out = unit.values + unit.firstPlace(i) * stride;
                unit.inputs.multiplyRows(i, weight_type, &.{.{ .span = span, .out = out }}, stride);
            }
            const span = unit.inputs.spanOf(unit.experts[0], slice);
            for (0..slice.parts) |part| {
                unit.finish(part * slice.count, stride, span.firstOf(part), span.countIn(part));
            }
        }
    }

    /// The row of `values` where those of experts[i] begin.
    fn firstPlace(unit: *const Unit, i: usize) usize {
        return unit.places[unit.inputs.batches.pairsOf(i)[0]];
    }

    /// Columns first..first + n of all tokens, whose products begin at `start` of their rows.
    fn finish(unit: *const Unit, start: usize, stride: usize, first: usize, n: usize) void {
        const num_slots = unit.sum.num_slots;
        for (0..unit.rows) |t| {
            const places = unit.places[t * num_slots ..][0..num_slots];
            unit.sum.token(t, places, unit.values + start, stride, first, n);
        }
    }
};

/// Where each pair's products lie: an expert's rows follow one another.
fn findPlaces(inputs: *const Inputs, places: []u32) void {
    const batches = &inputs.batches;
    const few_start = batches.numPanels() * tile_gemm.panel_rows;
    for (0..batches.experts.len) |i| {
        const start = if (batches.isTiled(i))
            batches.panel_starts[i] * tile_gemm.panel_rows
        else
            few_start + batches.firstFew(i);
        for (batches.pairsOf(i), start..) |pair, place| places[pair] = @intCast(place);
    }
}

/// How a token's slots are added up.
const Sum = struct {
    op: *const plan.ExpertLinear,
    num_slots: usize,
    /// `[rows, 2 * num_slots]`
    routing: [*]const f32,
    experts: []const plan.Weight,
    /// `[num_experts, width]`
    biases: ?[*]const f32,
    output: [*]f32,
    width: usize,

    /// Columns first..first + n of token t, from its slots' rows of `values`.
    fn token(
        sum: *const Sum,
        t: usize,
        places: []const u32,
        values: [*]const f32,
        stride: usize,
        first: usize,
        n: usize,
    ) void {
        const ids = sum.routing + 2 * t * sum.num_slots;
        const target = sum.output + t * sum.width + first;
        var at: usize = 0;
        while (at < n) : (at += 16) {
            const count = @min(16, n - at);
            var total: Floats = @splat(0);
            for (places, 0..) |place, slot| {
                const expert: usize = @intFromFloat(ids[slot]);
                var v = simd.load(Floats, values + place * stride + at);
                v *= @splat(sum.experts[expert].gain);
                if (sum.biases) |biases| {
                    v += loadUpTo(biases + expert * sum.width + first + at, count);
                }
                const weight = if (sum.op.is_weighted != 0) ids[sum.num_slots + slot] else 1;
                total = simd.fma(Floats, v, @splat(weight), total);
            }
            if (sum.op.epilogue == .accumulate) total = loadUpTo(target + at, count) + total;
            storeUpTo(target + at, total, count);
        }
    }
};
