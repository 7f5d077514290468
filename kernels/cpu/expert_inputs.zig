//! The activations of an expert op, laid out once for the kernels of all its experts, and one
//! expert's product with some columns of its matrix. Both regimes are those of product.zig, with
//! the same bits; each expert takes the one that suits its own number of rows.
const std = @import("std");
const plan = @import("../plan.zig");
const quant = @import("../quant/quant.zig");
const worker_file = @import("../worker.zig");
const matvec = @import("matvec.zig");
const tile_gemm = @import("tile_gemm.zig");
const batches_file = @import("expert_batches.zig");
const Batches = batches_file.Batches;
const Limits = batches_file.Limits;
const Scales = @import("../quant/scales.zig").Scales;
const Slice = @import("slices.zig").Slice;
const Step = worker_file.Step;
const Worker = worker_file.Worker;

const group_ids = quant.groups;
const most_own_rows = 16;

/// What an op lays out, and where: all of it follows from the plan.
pub const Layout = struct {
    limits: Limits,
    k: usize,
    /// Each slot reads its own row, not the token's.
    has_row_per_slot: bool,
    needed: [group_ids.len]bool = @splat(false),

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

    /// Experts may be of different types.
    pub fn add(layout: *Layout, experts: []const plan.Weight) void {
        for (experts) |weight| layout.needed[indexOf(groupOf(weight))] = true;
    }

    /// Whether no expert has weights in blocks.
    fn isFloat(layout: *const Layout) bool {
        return !layout.needed[indexOf(32)] and !layout.needed[indexOf(256)];
    }

    /// Bytes of rows in the rows regime.
    fn fewBytes(layout: *const Layout, group: u32, rows: usize) usize {
        return std.mem.alignForward(usize, rows * matvec.inputBytes(group, layout.k), 64);
    }
    /// Bytes of rows in the tile regime.
    fn panelBytes(layout: *const Layout, group: u32, panels: usize) usize {
        return tile_gemm.packedBytes(group, panels * tile_gemm.panel_rows, layout.k);
    }
    /// One group's rows, whichever regime each expert takes.
    fn groupBytes(layout: *const Layout, group: u32) usize {
        const panels = layout.limits.maxPanels();
        const few = layout.fewBytes(group, panels * tile_gemm.panel_rows);
        // Either part is rounded up to a line.
        return @max(few, layout.panelBytes(group, panels)) + 64;
    }
    pub fn sharedBytes(layout: *const Layout) usize {
        var bytes: usize = 0;
        for (group_ids, layout.needed) |group, is_needed| {
            if (is_needed) bytes += layout.groupBytes(group);
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
        var bytes = Batches.bytes(layout.limits);
        if (!layout.hasOwnRows()) return bytes;
        for (group_ids, layout.needed) |group, is_needed| {
            if (is_needed) bytes += layout.fewBytes(group, layout.ownRows());
        }
        return bytes;
    }
};

/// Private memory of one thread in `Inputs.multiply`.
pub fn kernelBytes(layout: *const Layout) usize {
    const rows = layout.limits.max_rows;
    var bytes: usize = 0;
    for (group_ids, layout.needed) |group, is_needed| {
        if (is_needed) bytes = @max(bytes, tile_gemm.threadBytes(group, rows, layout.k));
    }
    return bytes;
}

fn groupOf(weight: plan.Weight) u32 {
    return quant.group(quant.fromId(weight.type).?);
}
fn indexOf(group: u32) usize {
    return std.mem.indexOfScalar(u32, &group_ids, group).?;
}

pub const Inputs = struct {
    layout: *const Layout,
    batches: Batches,
    /// Per group: rows of experts with few rows, one after another.
    few: [group_ids.len][*]align(64) u8,
    /// Per group: panels of tiled experts.
    panels: [group_ids.len][*]align(64) u8,
    /// All few pairs read row 0.
    is_one_row: bool,
    prefetch_bytes: usize,

    /// Lays out `x` for all experts in use; without a routing slot s goes to expert s. Every thread calls it with the same arguments.
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
        var inputs: Inputs = .{
            .layout = layout,
            .batches = .make(sort_memory, layout.limits, routing, rows, rows_regime),
            .few = undefined,
            .panels = undefined,
            .is_one_row = rows == 1 and layout.ownRows() == 1,
            .prefetch_bytes = tuning.prefetch_bytes,
        };
        const is_own = rows == 1 and layout.hasOwnRows();
        const own_memory = sort_memory + Batches.bytes(layout.limits);
        inputs.placeGroups(if (is_own) own_memory else shared.ptr, is_own);
        if (is_own) {
            for (0..layout.ownRows()) |row| inputs.layRow(x, row, inputs.batches.pairs[row]);
            return inputs;
        }
        const few_pairs = inputs.batches.fewPairs();
        var expert: usize = 0;
        var phase = worker.phase(@intCast(few_pairs.len + inputs.batches.numPanels()));
        while (phase.next()) |unit| {
            if (unit < few_pairs.len) {
                inputs.layRow(x, unit, few_pairs[unit]);
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

    /// Panels first, then the rows of experts that have few.
    fn placeGroups(inputs: *Inputs, start: [*]u8, is_own: bool) void {
        const layout = inputs.layout;
        var memory = start;
        for (group_ids, layout.needed, 0..) |group, is_needed, g| {
            if (!is_needed) continue;
            const num_panels = inputs.batches.numPanels();
            inputs.panels[g] = @alignCast(memory);
            inputs.few[g] = @alignCast(memory + layout.panelBytes(group, num_panels));
            memory += if (is_own)
                layout.fewBytes(group, layout.ownRows())
            else
                layout.groupBytes(group);
        }
    }

    fn source(inputs: *const Inputs, x: [*]const f32, pair: usize) [*]const f32 {
        const layout = inputs.layout;
        const row = if (layout.has_row_per_slot) pair else pair / layout.limits.num_slots;
        return x + row * layout.k;
    }

    fn layRow(inputs: *const Inputs, x: [*]const f32, row: usize, pair: usize) void {
        const k = inputs.layout.k;
        const from = inputs.source(x, pair);
        for (group_ids, inputs.layout.needed, inputs.few) |group, is_needed, few| {
            if (!is_needed) continue;
            const target = few + row * matvec.inputBytes(group, k);
            matvec.layInput(group, from[0..k], @alignCast(target));
        }
    }

    fn layPanel(inputs: *const Inputs, x: [*]const f32, expert: usize, panel: usize) void {
        const k = inputs.layout.k;
        const pairs = inputs.batches.pairsOf(expert);
        const first = (panel - inputs.batches.panel_starts[expert]) * tile_gemm.panel_rows;
        const count = @min(tile_gemm.panel_rows, pairs.len - first);
        var sources: [tile_gemm.panel_rows][*]const f32 = undefined;
        for (sources[0..count], pairs[first..][0..count]) |*from, pair| {
            from.* = inputs.source(x, pair);
        }
        for (group_ids, inputs.layout.needed, inputs.panels) |group, is_needed, panels| {
            if (is_needed) tile_gemm.packGathered(group, panel, sources[0..count], k, panels);
        }
    }

    pub fn rowBytes(inputs: *const Inputs, weight: plan.Weight) usize {
        return quant.rowBytes(weight.type, inputs.layout.k);
    }

    /// out `[rows of experts[i]][stride]` = its rows · the span's weight rows, laid out as Span
    /// says. Only for experts with few rows.
    pub fn multiplyRows(
        inputs: *const Inputs,
        i: usize,
        weight_type: quant.Type,
        span: matvec.Span,
        out: [*]f32,
        stride: usize,
    ) void {
        const group = quant.group(weight_type);
        const row = if (inputs.is_one_row) 0 else inputs.batches.firstFew(i);
        const few = inputs.few[indexOf(group)];
        const input: matvec.Input = .{
            .num_rows = inputs.batches.pairsOf(i).len,
            .k = inputs.layout.k,
            .laid = @alignCast(few + row * matvec.inputBytes(group, inputs.layout.k)),
        };
        matvec.multiply(weight_type, span, input, out, stride);
    }

    /// Rows first..first + count of every quarter of a matrix.
    pub fn spanOf(inputs: *const Inputs, weight: plan.Weight, slice: Slice) matvec.Span {
        return .of(&weight, slice.first, slice.count, inputs.prefetch_bytes);
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
        const k = inputs.layout.k;
        const address: [*]const u8 = @ptrFromInt(weight.address);
        if (!inputs.batches.isTiled(i)) return inputs.multiplyRows(i, weight_type, .{
            .weight = address + first * inputs.rowBytes(weight),
            .scales = Scales.of(&weight).from(first),
            .num_rows = n,
            .first = 0,
            // Whole quarters: their results lie side by side.
            .count = matvec.Span.quarterRows(n),
            .prefetch_bytes = inputs.prefetch_bytes,
        }, out, tile_gemm.columns);
        const group = quant.group(weight_type);
        const first_row = inputs.batches.panel_starts[i] * tile_gemm.panel_rows;
        const panels = inputs.panels[indexOf(group)];
        tile_gemm.computePanel(
            &weight,
            first,
            n,
            inputs.batches.pairsOf(i).len,
            @alignCast(panels + tile_gemm.packedBytes(group, first_row, k)),
            kernel_memory,
            out,
        );
    }
};
