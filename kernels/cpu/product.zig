//! Products of one input with several weight matrices: normalises and quantises the input, shares
//! (matrix, columns) units among the threads, and finishes each unit with its epilogue. Up to
//! `Tuning.mostRows` rows take the rows regime, more take the tile regime; the bits are the same.
const std = @import("std");
const plan = @import("../plan.zig");
const quant = @import("../quant/quant.zig");
const worker_file = @import("../worker.zig");
const matvec = @import("matvec.zig");
const tile_gemm = @import("tile_gemm.zig");
const slices_file = @import("slices.zig");
const activation_groups = @import("activation_groups.zig");
const RowNorm = @import("norm.zig").RowNorm;
const Epilogue = @import("epilogue.zig").Epilogue;
const Tuning = @import("../tuning.zig").Tuning;
const Groups = activation_groups.Groups;
const LaidPanels = activation_groups.LaidPanels;
const LaidRows = activation_groups.LaidRows;
const Reading = slices_file.Reading;
const Slice = slices_file.Slice;
const Slices = slices_file.Slices;
const max_quarter_rows = slices_file.max_quarter_rows;
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const ScratchNeed = worker_file.ScratchNeed;

/// One output of an op: one matrix, or gate and up whose results are combined.
pub const Product = struct {
    weights: [2]plan.Weight,
    num_weights: u32,
    epilogue: Epilogue,

    fn numColumns(product: *const Product) usize {
        return product.weights[0].rows;
    }
};

/// What all products of the op read: x `[rows, k]`, each row normalised first.
pub const Input = struct {
    x: [*]const f32,
    rows: usize,
    k: usize,
    norm: ?RowNorm = null,

    pub fn of(step: *const Step, id: u32, norm: *const plan.RowNorm) Input {
        return .{
            .x = step.tensor(id),
            .rows = step.rows(id),
            .k = step.tensors[id].width,
            .norm = if (norm.kind == .absent) null else .of(step, norm),
        };
    }

    /// Rows first..first+count as they are multiplied, in `memory` where they are normalised.
    fn take(input: *const Input, first: usize, count: usize, memory: [*]f32) [*]const f32 {
        const x = input.x + first * input.k;
        const norm = input.norm orelse return x;
        for (0..count) |i| {
            norm.apply(x[i * input.k ..][0..input.k], memory[i * input.k ..][0..input.k]);
        }
        return memory;
    }
};

/// Bytes of normalised rows.
fn normedBytes(rows: usize, k: usize) usize {
    return std.mem.alignForward(usize, rows * k * @sizeOf(f32), 64);
}

/// Activation rows of one pass of the tile regime.
const max_tile_rows = 516;

/// Runs all products; every thread calls it with the same arguments.
pub fn run(shared: []align(64) u8, worker: *Worker, input: Input, products: []const Product) void {
    // A prompt's part that is not its last has no output rows.
    if (input.rows == 0) return;
    const is_float = quant.isFloat(quant.fromId(products[0].weights[0].type).?);
    if (input.rows <= worker.shared.tuning.mostRows(is_float)) {
        return runRows(shared, worker, input, products);
    }
    // Even parts, so that no part is left with a few rows.
    const parts = (input.rows + max_tile_rows - 1) / max_tile_rows;
    const each = padded((input.rows + parts - 1) / parts);
    var first: usize = 0;
    while (first < input.rows) : (first += each) {
        const rows = @min(each, input.rows - first);
        // The parts use the same memory one after another.
        if (first > 0) worker.sync();
        var part = input;
        part.x += first * input.k;
        part.rows = rows;
        runTiles(shared, worker, part, first, products);
    }
}

/// Rows of whole activation panels.
fn padded(rows: usize) usize {
    return tile_gemm.numPanels(rows) * panel_rows;
}
const panel_rows = 6;

/// Memory for the largest step of products of tensor `input` with `weights`.
pub fn scratchNeed(
    step: *const Step,
    input: u32,
    norm: *const plan.RowNorm,
    weights: []const plan.Weight,
) ScratchNeed {
    const k = step.tensors[input].width;
    const rows = switch (step.tensors[input].rows) {
        .tokens => step.header.max_tokens,
        .outputs => step.header.max_outputs,
    };
    var groups: Groups = .{};
    groups.add(weights);
    const normed: usize = if (norm.kind == .absent) 0 else 1;
    // Both regimes at every row count: the plan of the memory does not depend on the tuning.
    const few: usize = @min(rows, Tuning.max_rows_regime);
    const in_rows: ScratchNeed = .{
        .shared_bytes = groups.rowsBytes(few, k),
        .thread_bytes = normedBytes(normed, k) + groups.rowsBytes(1, k) +
            2 * few * 4 * max_quarter_rows * @sizeOf(f32),
    };
    const many: usize = @min(padded(rows), max_tile_rows);
    const kernel_bytes = groups.kernelBytes(many, k);
    const value_bytes = 2 * many * tile_gemm.columns * @sizeOf(f32);
    return in_rows.largest(.{
        .shared_bytes = groups.panelsBytes(many, k),
        .thread_bytes = @max(kernel_bytes + value_bytes, normedBytes(normed * panel_rows, k)),
    });
}

fn groupsOf(products: []const Product) Groups {
    var groups: Groups = .{};
    for (products) |*product| groups.add(product.weights[0..product.num_weights]);
    return groups;
}

// ------------------------------------------------------------------------- rows regime

fn runRows(shared: []align(64) u8, worker: *Worker, input: Input, products: []const Product) void {
    const groups = groupsOf(products);
    const k = input.k;
    const own_row: [*]f32 = @ptrCast(worker.scratch.ptr);
    const own_laid = worker.scratch.ptr + if (input.norm == null) 0 else normedBytes(1, k);
    const is_own = input.rows == 1;
    const laid: LaidRows = .{
        .groups = &groups,
        .memory = if (is_own) @alignCast(own_laid) else shared.ptr,
        .count = input.rows,
        .k = k,
        .have_panels = input.rows > 1 and haveFloatPanels(products),
    };
    if (is_own) {
        // Every thread does it for itself: cheaper than waiting for each other.
        laid.lay(0, input.take(0, 1, own_row));
    } else {
        var phase = worker.phase(@intCast(input.rows));
        while (phase.next()) |row| laid.lay(row, input.take(row, 1, own_row));
        worker.sync();
    }
    const values: [*]f32 = @ptrCast(@alignCast(own_laid + groups.rowsBytes(1, k)));
    var rows: Rows = .{
        .laid = &laid,
        .values = values,
        .tuning = &worker.shared.tuning,
    };
    var num_units: usize = 0;
    var most: u32 = std.math.maxInt(u32);
    for (products) |*product| {
        const slices = rows.slicesOf(product);
        num_units += slices.count();
        most = @min(most, slices.most);
    }
    var phase = worker.phase(@intCast(num_units));
    while (phase.nextRun(most)) |units| {
        var first_unit: usize = 0;
        for (products) |*product| {
            const slices = rows.slicesOf(product);
            const begin = @max(units.begin, first_unit) - first_unit;
            const end = @min(units.end -| first_unit, slices.count());
            if (begin < end) rows.compute(product, slices.at(begin, end));
            first_unit += slices.count();
        }
    }
}

/// Whether all float weights lie interleaved.
fn haveFloatPanels(products: []const Product) bool {
    for (products) |*product| for (product.weights[0..product.num_weights]) |*weight| {
        const is_float = quant.isFloat(quant.fromId(weight.type).?);
        if (is_float and weight.layout != .interleaved) return false;
    };
    return true;
}

/// What a unit of the rows regime needs.
const Rows = struct {
    laid: *const LaidRows,
    values: [*]f32,
    tuning: *const Tuning,
    /// Of gate and up, up comes first: where its streams ended, they go on.
    is_turned: bool = false,

    fn slicesOf(rows: *const Rows, product: *const Product) Slices {
        var row_bytes: usize = 0;
        for (product.weights[0..product.num_weights]) |w| {
            row_bytes += quant.rowBytes(w.type, w.cols);
        }
        const all = product.weights[0..product.num_weights];
        const sets = [2][]const plan.Weight{ all[0..1], all[all.len - 1 ..] };
        const in_pairs = rows.laid.areBeside(quant.group(quant.fromId(all[0].type).?));
        const reading: Reading = if (in_pairs) .in_pairs else .of(rows.laid.count);
        return .of(rows.tuning, sets[0..all.len], reading, row_bytes);
    }

    fn compute(rows: *Rows, product: *const Product, slice: Slice) void {
        const num_rows = rows.laid.count;
        const stride = slice.parts * slice.count;
        var targets: [2]matvec.Target = undefined;
        for (product.weights[0..product.num_weights], 0..) |*w, i| targets[i] = .{
            .span = .of(w, slice, rows.tuning.prefetch_bytes),
            .out = rows.values + i * num_rows * stride,
        };
        if (product.num_weights == 1 or slice.together) {
            rows.multiply(&product.weights[0], targets[0..product.num_weights], stride);
        } else for (0..2) |turn| {
            const i = if (rows.is_turned) 1 - turn else turn;
            rows.multiply(&product.weights[i], targets[i..][0..1], stride);
        }
        rows.is_turned = !rows.is_turned;
        const span = &targets[0].span;
        for (0..slice.parts) |part| {
            const own = rows.values + part * slice.count;
            const first = span.firstOf(part);
            const up = own + num_rows * stride;
            const n = span.countIn(part);
            product.epilogue.apply(own, up, stride, 0, num_rows, first, n);
        }
    }

    fn multiply(
        rows: *const Rows,
        weight: *const plan.Weight,
        targets: []const matvec.Target,
        stride: usize,
    ) void {
        const weight_type = quant.fromId(weight.type).?;
        const input: matvec.Input = .{
            .num_rows = rows.laid.count,
            .k = rows.laid.k,
            .laid = rows.laid.of(quant.group(weight_type), 0),
            .are_beside = rows.laid.areBeside(quant.group(weight_type)),
        };
        matvec.multiply(weight_type, targets, input, stride);
    }
};

// ------------------------------------------------------------------------- tile regime

/// Panels of 32 columns.
fn numPanelUnits(products: []const Product) u32 {
    var count: usize = 0;
    for (products) |*product| count += numPanels(product);
    return @intCast(count);
}
fn numPanels(product: *const Product) usize {
    return (product.numColumns() + tile_gemm.columns - 1) / tile_gemm.columns;
}

const Place = struct { product: *const Product, first: usize };

fn findPanel(products: []const Product, index: u32) Place {
    var left: usize = index;
    for (products) |*product| {
        const count = numPanels(product);
        if (left < count) return .{ .product = product, .first = left * tile_gemm.columns };
        left -= count;
    }
    unreachable;
}

fn runTiles(
    shared: []align(64) u8,
    worker: *Worker,
    input: Input,
    first_row: usize,
    products: []const Product,
) void {
    const groups = groupsOf(products);
    const k = input.k;
    const panels: LaidPanels = .{
        .groups = &groups,
        .memory = shared.ptr,
        .count = input.rows,
        .k = k,
    };
    const own: [*]f32 = @ptrCast(worker.scratch.ptr);
    var packing = worker.phase(@intCast(tile_gemm.numPanels(input.rows)));
    while (packing.next()) |panel| {
        const first = panel * panel_rows;
        const count = @min(panel_rows, input.rows - first);
        const x = input.take(first, count, own);
        var sources: [panel_rows][*]const f32 = undefined;
        for (sources[0..count], 0..) |*source, i| source.* = x + i * k;
        panels.pack(panel, sources[0..count]);
    }
    worker.sync();
    const value_bytes = padded(input.rows) * tile_gemm.columns * @sizeOf(f32);
    const values: [2][*]align(64) f32 = .{
        @ptrCast(worker.scratch.ptr),
        @ptrCast(@alignCast(worker.scratch.ptr + value_bytes)),
    };
    const kernel_scratch: []align(64) u8 = @alignCast(worker.scratch[2 * value_bytes ..]);
    var phase = worker.phase(numPanelUnits(products));
    while (phase.next()) |unit| {
        const place = findPanel(products, unit);
        const product = place.product;
        const n = @min(tile_gemm.columns, product.numColumns() - place.first);
        for (product.weights[0..product.num_weights], 0..) |w, i| {
            const laid = panels.of(quant.group(quant.fromId(w.type).?), 0);
            const first = place.first;
            tile_gemm.computePanel(&w, first, n, input.rows, laid, kernel_scratch, values[i]);
        }
        const stride = tile_gemm.columns;
        const epilogue = &product.epilogue;
        epilogue.apply(values[0], values[1], stride, first_row, input.rows, place.first, n);
    }
}
