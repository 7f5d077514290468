//! expert_linear: the down projections of each token's experts and their weighted sum. A unit is
//! some columns of all experts, so that the sum of a token's slots is made in slot order where
//! the products are, with nothing stored between.
const std = @import("std");
const simd = @import("../simd.zig");
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const tile_gemm = @import("tile_gemm.zig");
const expert_inputs = @import("expert_inputs.zig");
const Inputs = expert_inputs.Inputs;
const Layout = expert_inputs.Layout;
const Floats = simd.Floats;
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;

/// Columns of a unit of either regime.
const columns = tile_gemm.columns;

fn layoutOf(step: *const Step, op: *const plan.ExpertLinear) Layout {
    const experts = step.weights[op.weight..][0..op.num_experts];
    var layout: Layout = .init(step, op.input, op.routing, experts);
    layout.add(experts);
    return layout;
}

/// Bytes of a unit's products: tiled experts in whole panels, then those with few rows.
fn valueBytes(layout: *const Layout) usize {
    return layout.limits.maxPanels() * tile_gemm.panel_rows * columns * @sizeOf(f32);
}
fn placeBytes(layout: *const Layout) usize {
    return std.mem.alignForward(usize, layout.limits.maxPairs() * @sizeOf(u32), 64);
}

pub fn scratchNeed(step: *const Step, op: *const plan.ExpertLinear) ScratchNeed {
    const layout = layoutOf(step, op);
    const kernel_bytes = expert_inputs.kernelBytes(&layout);
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
        .biases = step.vector(op.bias),
        .output = step.tensor(op.output),
        .width = experts[0].rows,
    };
    var phase = worker.phase(@intCast((sum.width + columns - 1) / columns));
    while (phase.next()) |unit| {
        const first = unit * columns;
        const n = @min(columns, sum.width - first);
        for (inputs.batches.experts, 0..) |expert, i| {
            const place: usize = places[inputs.batches.pairsOf(i)[0]];
            const target: [*]align(64) f32 = @alignCast(values + place * columns);
            inputs.multiply(i, experts[expert], first, n, kernel_memory, target, columns);
        }
        for (0..rows) |t| {
            sum.token(t, places[t * sum.num_slots ..][0..sum.num_slots], values, first, n);
        }
    }
}

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
                var v = simd.load(Floats, values + place * columns + at);
                if (sum.biases) |biases| {
                    const expert: usize = @intFromFloat(ids[slot]);
                    v += simd.loadFirst(biases + expert * sum.width + first + at, count);
                }
                const weight = if (sum.op.is_weighted != 0) ids[sum.num_slots + slot] else 1;
                total = simd.fma(Floats, v, @splat(weight), total);
            }
            if (sum.op.epilogue == .accumulate) total = simd.loadFirst(target + at, count) + total;
            const elements: [16]f32 = total;
            if (count == 16) simd.store(target + at, total) else {
                @memcpy(target[at..][0..count], elements[0..count]);
            }
        }
    }
};
