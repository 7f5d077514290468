//! The activations of an expert op, laid out once for the kernels of all its experts, and one
//! expert's product with some columns of its matrix. Both regimes are those of product.zig, with
//! the same bits; each expert takes the one that suits its own number of rows.
const std = @import("std");
const plan = @import("../plan.zig");
const quant = @import("../quant/quant.zig");
const worker_file = @import("../worker.zig");
const matvec = @import("matvec.zig");
const tile_gemm = @import("tile_gemm.zig");
const activation_groups = @import("activation_groups.zig");
const batches_file = @import("expert_batches.zig");
const Groups = activation_groups.Groups;
const LaidPanels = activation_groups.LaidPanels;
const LaidRows = activation_groups.LaidRows;
const Batches = batches_file.Batches;
const Limits = batches_file.Limits;
const Scales = @import("../quant/scales.zig").Scales;
const Slice = @import("slices.zig").Slice;
const Step = worker_file.Step;
const Worker = worker_file.Worker;

const most_own_rows = 16;

/// What an op lays out, and where: all of it follows from the plan.
pub const Layout = struct {
    limits: Limits,
    k: usize,
    /// Each slot reads its own row, not the token's.
    has_row_per_slot: bool,
    /// Of all weights of the op; experts may be of different types.
    groups: Groups = .{},

    pub fn init(
        step: *const Step,
        input: u32,
        num_slots: usize,
        experts: []const plan.Weight,
    ) Layout {
        const k = experts[0].cols;
        return .{
            .limits = .{
                .max_rows = switch (step.tensors[input].rows) {
                    .tokens => step.header.max_tokens,
                    .outputs => step.header.max_outputs,
                },
                .num_slots = num_slots,
                .num_experts = experts.len,
            },
            .k = k,
            .has_row_per_slot = num_slots > 1 and step.tensors[input].width != k,
        };
    }

    /// Whether no expert has weights in blocks.
    fn isFloat(layout: *const Layout) bool {
        return std.mem.indexOfAny(u32, layout.groups.all(), &.{ 32, 256 }) == null;
    }

    /// Rows of experts with few and panels of the others: together no more than `maxPanels` hold.
    pub fn sharedBytes(layout: *const Layout) usize {
        const rows = layout.limits.maxPanels() * tile_gemm.panel_rows;
        var bytes: usize = 0;
        for (layout.groups.all()) |group| {
            const few = rows * matvec.inputBytes(group, layout.k);
            bytes += @max(few, tile_gemm.packedBytes(group, rows, layout.k));
        }
        return bytes;
    }

    /// Rows of a single token.
    fn ownRows(layout: *const Layout) usize {
        return if (layout.has_row_per_slot) layout.limits.num_slots else 1;
    }
    /// Whether every thread lays out a single token's rows for itself: few cost less than waiting
    /// for each other, a row for each of many heads does not.
    fn hasOwnRows(layout: *const Layout) bool {
        return layout.ownRows() <= most_own_rows;
    }
    /// Private memory of `Inputs.lay`; what follows it is the op's own.
    pub fn threadBytes(layout: *const Layout) usize {
        const bytes = Batches.bytes(layout.limits);
        if (!layout.hasOwnRows()) return bytes;
        return bytes + layout.groups.rowsBytes(layout.ownRows(), layout.k);
    }
    /// Private memory of one thread in `Inputs.multiplyPanel`.
    pub fn kernelBytes(layout: *const Layout) usize {
        return layout.groups.kernelBytes(layout.limits.max_rows, layout.k);
    }
};

pub const Inputs = struct {
    layout: *const Layout,
    batches: Batches,
    /// Of tiled experts.
    panels: LaidPanels,
    /// Of experts with few rows, one expert's after another's.
    few: LaidRows,
    /// All few pairs read row 0.
    is_one_row: bool,
    prefetch_bytes: usize,

    /// Lays out `x` for all experts in use; without a routing slot s goes to expert s. Every thread
    /// calls it with the same arguments.
    pub fn lay(
        layout: *const Layout,
        shared: []align(64) u8,
        worker: *Worker,
        x: [*]const f32,
        routing: ?[*]const f32,
        rows: usize,
    ) Inputs {
        const sort_memory = worker.scratch.ptr;
        const tuning = &worker.shared.tuning;
        // A single row is laid out for the rows regime alone.
        const rows_regime = @max(1, tuning.mostRows(layout.isFloat()));
        const batches: Batches = .make(sort_memory, layout.limits, routing, rows, rows_regime);
        const few_pairs = batches.fewPairs();
        const is_own = rows == 1 and layout.hasOwnRows();
        const num_few = if (is_own) layout.ownRows() else few_pairs.len;
        const num_tiled = batches.numPanels() * tile_gemm.panel_rows;
        const own_memory = sort_memory + Batches.bytes(layout.limits);
        const memory: [*]align(64) u8 = if (is_own) @alignCast(own_memory) else shared.ptr;
        const groups = &layout.groups;
        const k = layout.k;
        const few_memory: [*]align(64) u8 = @alignCast(memory + groups.panelsBytes(num_tiled, k));
        const inputs: Inputs = .{
            .layout = layout,
            .batches = batches,
            .panels = .{ .groups = groups, .memory = memory, .count = num_tiled, .k = k },
            .few = .{ .groups = groups, .memory = few_memory, .count = num_few, .k = k },
            .is_one_row = rows == 1 and layout.ownRows() == 1,
            .prefetch_bytes = tuning.prefetch_bytes,
        };
        if (is_own) {
            for (0..num_few) |row| inputs.few.lay(row, inputs.source(x, few_pairs[row]));
            return inputs;
        }
        var expert: usize = 0;
        var phase = worker.phase(@intCast(few_pairs.len + inputs.batches.numPanels()));
        while (phase.next()) |unit| {
            if (unit < few_pairs.len) {
                inputs.few.lay(unit, inputs.source(x, few_pairs[unit]));
                continue;
            }
            const panel = unit - few_pairs.len;
            if (panel < inputs.batches.panel_starts[expert]) expert = 0;
            while (inputs.batches.panel_starts[expert + 1] <= panel) expert += 1;
            inputs.layPanel(x, expert, panel);
        }
        worker.sync();
        return inputs;
    }

    fn source(inputs: *const Inputs, x: [*]const f32, pair: usize) [*]const f32 {
        const layout = inputs.layout;
        const row = if (layout.has_row_per_slot) pair else pair / layout.limits.num_slots;
        return x + row * layout.k;
    }

    fn layPanel(inputs: *const Inputs, x: [*]const f32, expert: usize, panel: usize) void {
        const pairs = inputs.batches.pairsOf(expert);
        const first = (panel - inputs.batches.panel_starts[expert]) * tile_gemm.panel_rows;
        const count = @min(tile_gemm.panel_rows, pairs.len - first);
        var sources: [tile_gemm.panel_rows][*]const f32 = undefined;
        for (sources[0..count], pairs[first..][0..count]) |*from, pair| {
            from.* = inputs.source(x, pair);
        }
        inputs.panels.pack(panel, sources[0..count]);
    }

    pub fn rowBytes(inputs: *const Inputs, weight: plan.Weight) usize {
        return quant.rowBytes(weight.type, inputs.layout.k);
    }

    /// The products of the rows of experts[i] with those of the targets, as of `matvec.multiply`.
    /// Only for experts with few rows.
    pub fn multiplyRows(
        inputs: *const Inputs,
        i: usize,
        weight_type: quant.Type,
        targets: []const matvec.Target,
        stride: usize,
    ) void {
        const row = if (inputs.is_one_row) 0 else inputs.batches.firstFew(i);
        const input: matvec.Input = .{
            .num_rows = inputs.batches.pairsOf(i).len,
            .k = inputs.layout.k,
            .laid = inputs.few.of(quant.group(weight_type), row),
        };
        matvec.multiply(weight_type, targets, input, stride);
    }

    pub fn spanOf(inputs: *const Inputs, weight: plan.Weight, slice: Slice) matvec.Span {
        return .of(&weight, slice, inputs.prefetch_bytes);
    }

    /// out `[rows of experts[i]][32]` = its rows · weight rows first..first + n, at most 32. Space
    /// is written up to whole panels.
    pub fn multiplyPanel(
        inputs: *const Inputs,
        i: usize,
        weight: plan.Weight,
        first: usize,
        n: usize,
        kernel_memory: []align(64) u8,
        out: [*]align(64) f32,
    ) void {
        const weight_type = quant.fromId(weight.type).?;
        const address: [*]const u8 = @ptrFromInt(weight.address);
        const parts: usize = if (weight.layout == .rows) 4 else 2;
        if (!inputs.batches.isTiled(i)) {
            // Whole parts: their results lie side by side.
            const height = (n + parts - 1) / parts;
            const span: matvec.Span = .{
                .weight = address + first * inputs.rowBytes(weight),
                .scales = Scales.of(&weight).from(first),
                .num_rows = n,
                .first = 0,
                .count = height,
                .parts = parts,
                .height = height,
                .layout = weight.layout,
                .prefetch_bytes = inputs.prefetch_bytes,
            };
            const target: matvec.Target = .{ .span = span, .out = out };
            return inputs.multiplyRows(i, weight_type, &.{target}, tile_gemm.columns);
        }
        const first_row = inputs.batches.panel_starts[i] * tile_gemm.panel_rows;
        tile_gemm.computePanel(
            &weight,
            first,
            n,
            inputs.batches.pairsOf(i).len,
            inputs.panels.of(quant.group(weight_type), first_row),
            kernel_memory,
            out,
        );
    }
};
