//! Many activation rows against F32, F16, BF16 and 8-bit float weights, with the same bits as
//! matvec_float.zig: every output keeps 16 strands in vector lanes and halves them at the end.
const std = @import("std");
const assert = std.debug.assert;
const simd = @import("../simd.zig");
const plan = @import("../plan.zig");
const quant = @import("../quant/quant.zig");
const scales_file = @import("../quant/scales.zig");
const strands = @import("strands.zig");
const FlushDenormals = @import("../float_control.zig").FlushDenormals;
const interleave = @import("../interleave.zig");
const layout = @import("tile_layout.zig");
const Step = strands.Step;
const Scales = scales_file.Scales;
const RowScales = scales_file.RowScales;
const columns = layout.columns;
const panel_rows = layout.panel_rows;

/// Strands that one register holds; narrow machines pass over the steps once for each part.
const lanes = simd.native_lanes;
const parts = 16 / lanes;
const Lanes = @Vector(lanes, u32);
const Sums = @Vector(lanes, f32);

/// Register tile: weight rows x activation rows, each pair one accumulator.
const strip = 4;
const num_strips = columns / strip;
const tile_rows = if (simd.num_registers == 32) 6 else if (simd.has_fma) 3 else 2;

/// Steps of K whose weights are laid out at a time. A row of so many is taken whole: no strand is
/// stored and loaded again; longer rows leave strands of all panels behind.
const depth = 128;
/// Steps that all strips take before the next ones. Narrow vectors load more for each product, so a
/// panel's activations and a strip's weights have to stay in a first-level cache of 32 KiB: 512 rows
/// of F16 on AVX2 95 -> 106 tok/s (Zen 4).
const near = if (parts == 1) depth else 64;

/// What a thread lays out: the weights of 32 columns.
const Laid = [num_strips][parts][depth][strip]Lanes;
/// Sums of one panel, 12 KiB. Those of all panels pass through the caches once for every `depth`:
/// 5 to 10 % faster than few panels at a time, whose weights are laid out again (Zen 5, 512 rows).
const Strands = [num_strips][parts][panel_rows][strip]Sums;

/// Private memory of one thread: weights, then strands.
pub fn threadBytes(group: u32, rows: usize, k: usize) usize {
    const count = if (isWhole(group, k)) 1 else layout.numPanels(rows);
    return @sizeOf(Laid) + count * @sizeOf(Strands);
}

fn isWhole(group: u32, k: usize) bool {
    return strands.numSteps(group, k) <= depth;
}

// ------------------------------------------------------------------------- activations

/// One packed panel: `[parts][steps][panel_rows]` of lanes.
pub fn panelBytes(group: u32, k: usize) usize {
    return strands.numSteps(group, k) * panel_rows * strands.step_bytes;
}

/// Packs a panel's activation rows `[k]`; rows that do not exist are zeros.
pub fn packRows(
    comptime group: u32,
    sources: []const [*]const f32,
    k: usize,
    panel: [*]align(64) u8,
) void {
    assert(sources.len <= panel_rows);
    const target: [*]align(64) Lanes = @ptrCast(panel);
    const count = strands.numSteps(group, k);
    const Row = strands.Activations(group);
    for (0..panel_rows) |m| {
        const source: [*]const u8 = @ptrCast(sources[@min(m, sources.len - 1)]);
        const length = if (m < sources.len) k else 0;
        layRow(Row, panel_rows, source, 1, 0, length, count, count, target + m);
    }
}

/// Steps of one row from element `first` on, all of one scale, into every `width`-th place of
/// `target`, whose parts are `part_steps` steps apart.
inline fn layRow(
    comptime Row: type,
    comptime width: usize,
    source: [*]const u8,
    scale: f32,
    first: usize,
    k: usize,
    num_steps: usize,
    part_steps: usize,
    target: [*]Lanes,
) void {
    var step: usize = 0;
    while (step < num_steps) : (step += Row.steps) {
        const at = first + step / Row.steps * Row.elements;
        const none: Row.Lanes = @splat(@splat(0));
        const read = if (at < k) Row.read(source, at, k, scale) else none;
        inline for (read, 0..) |lanes_of_step, i| inline for (0..parts) |part| {
            const place = (part * part_steps + step + i) * width;
            target[place] = simd.part(u32, lanes, lanes_of_step, part * lanes);
        };
    }
}

/// `count` steps of a weight row from element `first` on, each with the scale of its block.
fn layWeights(
    comptime Row: type,
    source: [*]const u8,
    scales: RowScales,
    first: usize,
    k: usize,
    count: usize,
    target: [*]Lanes,
) void {
    if (!Row.is_scaled) return layRow(Row, strip, source, 1, first, k, count, depth, target);
    var step: usize = 0;
    while (step < count) {
        const at = first + step * Row.elements;
        const block = at / scales.block_cols;
        const left = (block + 1) * scales.block_cols - at;
        const steps = @min(count - step, (left + Row.elements - 1) / Row.elements);
        const scale = scales.values[block];
        layRow(Row, strip, source, scale, at, k, steps, depth, target + step * strip);
        step += steps;
    }
}

// ------------------------------------------------------------------------- products

/// out `[panels * 6][32]` = packed activations · weight rows n0..n0+n; columns past n and rows
/// past `rows` are unspecified.
pub fn computePanel(
    weight: *const plan.Weight,
    n0: usize,
    n: usize,
    rows: usize,
    packed_memory: [*]align(64) const u8,
    scratch: []align(64) u8,
    out: [*]align(64) f32,
) void {
    assert(n >= 1 and n <= columns);
    const k = weight.cols;
    const num_panels = layout.numPanels(rows);
    const address: [*]const u8 = @ptrFromInt(weight.address);
    const scales = Scales.of(weight).from(n0);
    switch (quant.fromId(weight.type).?) {
        inline .f32, .f16, .bf16, .f8_e4m3, .f8_e5m2 => |t| {
            const Row = strands.Weights(t);
            const mode: ?FlushDenormals = if (t == .bf16) .begin() else null;
            defer if (mode) |previous| previous.end();
            const source: Source(Row) = .{
                .start = address + n0 * k * @sizeOf(Row.Format.Block),
                .layout = weight.layout,
                .scales = scales,
                .n = n,
                .k = k,
            };
            const activations: [*]align(64) const Lanes = @ptrCast(packed_memory);
            computeColumns(Row, &source, num_panels, activations, scratch, out);
        },
        else => unreachable,
    }
}

/// `n` weight rows of `k` elements.
fn Source(comptime Row: type) type {
    return struct {
        start: [*]const u8,
        layout: plan.Layout,
        scales: Scales,
        n: usize,
        k: usize,

        const Self = @This();

        /// Lays `count` steps from step `first` of all rows out; columns past `n` repeat the last.
        fn lay(source: *const Self, first: usize, count: usize, laid: *Laid) void {
            if (!Row.is_scaled and source.layout == .interleaved) {
                return source.layPanels(first, count, laid);
            }
            for (0..columns) |c| {
                const row = @min(c, source.n - 1);
                const start = source.start + row * source.k * @sizeOf(Row.Format.Block);
                const element = first / Row.steps * Row.elements;
                const scales = source.scales.ofRow(row);
                const target: [*]Lanes = @ptrCast(&laid[c / strip]);
                layWeights(Row, start, scales, element, source.k, count, target + c % strip);
            }
        }

        /// Of whole panels, which have whole steps.
        fn layPanels(source: *const Self, first: usize, count: usize, laid: *Laid) void {
            const Units = interleave.Units(Row.Format);
            const panel_bytes = interleave.panel_rows * source.k * @sizeOf(Row.Format.Block);
            const last = source.n / interleave.panel_rows - 1;
            for (0..columns / interleave.panel_rows) |p| {
                const panel = source.start + @min(p, last) * panel_bytes;
                var step: usize = 0;
                while (step < count) : (step += Row.steps) {
                    const at = (first + step) / Row.steps;
                    const block = panel + at / Units.num_steps * interleave.panel_rows * Units.size;
                    const column = p * interleave.panel_rows;
                    layUnits(Row, block, at % Units.num_steps, laid, column, step);
                }
            }
        }
    };
}

/// One step of a panel's rows, from `block` of them, to the columns from `column` on.
fn layUnits(
    comptime Row: type,
    block: [*]const u8,
    from: usize,
    laid: *Laid,
    column: usize,
    step: usize,
) void {
    @setEvalBranchQuota(10_000);
    const Units = interleave.Units(Row.Format);
    const unit_bytes = Units.most_bytes;
    const starts = Units.places[from * interleave.num_strands * unit_bytes ..];
    // As many rows and strands as a vector has lanes.
    for (0..parts) |part| for (0..parts) |rows| {
        var read: [Row.steps][lanes]Lanes = undefined;
        inline for (0..lanes) |i| {
            const unit = block + starts[(part * lanes + i) * unit_bytes] + rows * lanes * unit_bytes;
            inline for (&read, Row.units(lanes, unit)) |*own, some| own[i] = some;
        }
        inline for (read, 0..) |own, s| inline for (simd.transpose(lanes, own), 0..) |row, i| {
            const c = column + rows * lanes + i;
            laid[c / strip][part][step + s][c % strip] = row;
        };
    };
}

fn computeColumns(
    comptime Row: type,
    source: *const Source(Row),
    num_panels: usize,
    activations: [*]align(64) const Lanes,
    scratch: []align(64) u8,
    out: [*]align(64) f32,
) void {
    const laid: *Laid = @ptrCast(scratch.ptr);
    const all_strands: [*]align(64) Strands = @ptrCast(@alignCast(scratch.ptr + @sizeOf(Laid)));
    const num_steps = strands.numSteps(Row.group, source.k);
    const is_whole = isWhole(Row.group, source.k);
    var first: usize = 0;
    while (first < num_steps) : (first += depth) {
        const count = @min(depth, num_steps - first);
        source.lay(first, count, laid);
        for (0..num_panels) |panel| {
            const x = activations + (panel * parts * num_steps + first) * panel_rows;
            const next: [*]const u8 = @ptrCast(x + parts * num_steps * panel_rows);
            const sums = &all_strands[if (is_whole) 0 else panel];
            var done: usize = 0;
            while (done < count) : (done += near) {
                const some = @min(near, count - done);
                inline for (0..parts) |part| for (0..num_strips) |s| {
                    const at = (part * num_steps + done) * panel_rows;
                    var row: usize = 0;
                    while (row < panel_rows) : (row += tile_rows) addTile(
                        Row,
                        laid[s][part][done..],
                        x + at + row,
                        next + at * @sizeOf(Lanes) + s * some * 64,
                        some,
                        first + done == 0,
                        sums[s][part][row..][0..tile_rows],
                    );
                };
            }
            if (first + depth >= num_steps) {
                sumPanel(sums, out + panel * panel_rows * columns);
            }
        }
    }
}

/// Adds `count` steps to one register tile of strands. One line a step is asked for at `next`,
/// the activations of the next panel: over all strips that is all of them.
inline fn addTile(
    comptime Row: type,
    weights: []const [strip]Lanes,
    x: [*]const Lanes,
    next: [*]const u8,
    count: usize,
    is_first: bool,
    sums: *[tile_rows][strip]Sums,
) void {
    var acc: [tile_rows][strip]Sums = if (is_first) @splat(@splat(@splat(0))) else sums.*;
    for (0..count) |step| {
        simd.prefetchSecond(next + step * 64);
        if (simd.num_registers == 32) {
            const w = weights[step];
            inline for (0..tile_rows) |m| {
                const v = x[step * panel_rows + m];
                inline for (0..strip) |c| acc[m][c] = Row.multiplyAdd(lanes, acc[m][c], w[c], v);
            }
        } else {
            // The other way round no sum has to leave its register.
            const v = x[step * panel_rows ..][0..tile_rows].*;
            inline for (0..strip) |c| {
                const w = weights[step][c];
                inline for (0..tile_rows) |m| {
                    acc[m][c] = Row.multiplyAdd(lanes, acc[m][c], w, v[m]);
                }
            }
        }
    }
    sums.* = acc;
}

/// out `[6][32]` = the sums of all strands of one panel.
fn sumPanel(panel: *const Strands, out: [*]f32) void {
    for (0..panel_rows) |m| for (0..columns / lanes) |group| {
        var whole: [lanes]Sums = undefined;
        inline for (&whole, 0..) |*sum, c| {
            const own = &panel[group * (lanes / strip) + c / strip];
            // Halves, or quarters, of the strands are added first: so does simd.sumHalving.
            sum.* = switch (parts) {
                1 => own[0][m][c % strip],
                2 => own[0][m][c % strip] + own[1][m][c % strip],
                4 => (own[0][m][c % strip] + own[2][m][c % strip]) +
                    (own[1][m][c % strip] + own[3][m][c % strip]),
                else => comptime unreachable,
            };
        }
        simd.store(out + m * columns + group * lanes, simd.sumHalvingEach(lanes, whole));
    };
}
