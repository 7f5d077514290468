//! Matrix product of weights with many activation rows (prefill): weights are unpacked tile by
//! tile from the file's own blocks, activations are quantised and packed once. Floats: dense.zig.
const std = @import("std");
const assert = std.debug.assert;
const plan = @import("../plan.zig");
const quant = @import("../quant/quant.zig");
const dense = @import("dense.zig");
const layout = @import("tile_layout.zig");
const kernel = @import("tile_kernel.zig");
const pack = @import("tile_pack.zig");
const unpack = @import("tile_unpack.zig");
const blocks = @import("tile_unpack_blocks.zig");
const decoded = @import("tile_unpack_decoded.zig");
const mins = @import("tile_unpack_mins.zig");
const signed = @import("tile_unpack_signed.zig");
const vector = @import("tile_vector.zig");
const Panel = layout.Panel;
const Tile = layout.Tile;

/// Output columns (weight rows) of one panel.
pub const columns = layout.columns;
/// Activation rows of one packed panel.
pub const panel_rows = layout.panel_rows;

/// The unpacker of a weight type; null where weights are floats.
fn Unpacker(comptime weight_type: quant.Type) ?type {
    const Format = quant.Format(weight_type);
    return switch (weight_type) {
        .q4_0, .q4_1, .q5_0, .q5_1 => blocks.Nibbles(Format.Block),
        .q8_0 => blocks.Bytes(Format.Block),
        .q2_k => mins.TwoBits(Format.Block),
        .q4_k, .q5_k => mins.Nibbles(Format.Block),
        .q3_k => signed.ThreeBits(Format.Block),
        .q6_k => signed.SixBits(Format.Block),
        .iq4_nl, .mxfp4 => blocks.Levels(Format),
        .iq1_s, .iq1_m, .iq2_xxs, .iq2_xs, .iq2_s, .iq3_xxs, .iq3_s => decoded.Decoded(Format),
        .nvfp4, .q1_0, .q2_0 => decoded.DecodedBlocks(Format),
        .iq4_xs, .tq1_0, .tq2_0 => decoded.Decoded(Format),
        .f32, .f16, .bf16, .f8_e4m3, .f8_e5m2 => null,
    };
}

/// Bytes of the packed activations of `rows` rows.
pub fn packedBytes(group: u32, rows: usize, k: usize) usize {
    return numPanels(rows) * switch (group) {
        32, 256 => Panel.init(group, k).bytes,
        else => dense.panelBytes(group, k),
    };
}

pub const numPanels = layout.numPanels;

/// Quantises and packs panel `panel` from its activation rows `[k]`, at most `panel_rows` of them.
pub fn packPanel(
    group: u32,
    panel: usize,
    sources: []const [*]const f32,
    k: usize,
    packed_memory: [*]align(64) u8,
) void {
    const bytes = packedBytes(group, layout.panel_rows, k);
    const base: [*]align(64) u8 = @alignCast(packed_memory + panel * bytes);
    switch (group) {
        inline 0, quant.brain_group => |id| dense.packRows(id, sources, k, base),
        inline 32, 256 => |id| {
            assert(k % id == 0);
            const parts: Panel = .init(id, k);
            pack.packRows(id, parts.view(id, base, 0), sources, k);
        },
        else => unreachable,
    }
}

/// Private memory of one thread in `computePanel` of up to `rows` rows packed for `group`.
pub fn threadBytes(group: u32, rows: usize, k: usize) usize {
    return switch (group) {
        32, 256 => @sizeOf(Tile),
        else => dense.threadBytes(group, rows, k),
    };
}

/// out `[numPanels(rows) * 6][32]` = activations · weight rows `n0..n0 + n`; columns from `n` on
/// and rows from `rows` on are unspecified. Reads no weight row outside those `n`.
pub fn computePanel(
    weight: *const plan.Weight,
    n0: usize,
    n: usize,
    rows: usize,
    packed_memory: [*]align(64) const u8,
    scratch: []align(64) u8,
    out: [*]align(64) f32,
) void {
    const k = weight.cols;
    const known = quant.fromId(weight.type).?;
    assert(n >= 1 and n <= columns);
    assert(scratch.len >= threadBytes(quant.group(known), rows, k));
    if (quant.isFloat(known)) {
        return dense.computePanel(weight, n0, n, rows, packed_memory, scratch, out);
    }
    const row_bytes = quant.rowBytes(weight.type, k);
    const first: [*]const u8 = @ptrFromInt(weight.address);
    var sources: unpack.Sources = undefined;
    for (&sources, 0..) |*source, i| source.* = first + (n0 + @min(i, n - 1)) * row_bytes;
    const tile: *Tile = @ptrCast(scratch.ptr);
    switch (known) {
        inline else => |weight_type| if (comptime Unpacker(weight_type)) |Format| {
            compute(Format, &sources, tile, rows, k, packed_memory, out);
        } else unreachable,
    }
}

fn compute(
    comptime Format: type,
    sources: *const unpack.Sources,
    tile: *Tile,
    rows: usize,
    k: usize,
    packed_memory: [*]align(64) const u8,
    out: [*]align(64) f32,
) void {
    const group = Format.recipe.group;
    const parts: Panel = .init(group, k);
    var k0: usize = 0;
    while (k0 < k) : (k0 += layout.depth) {
        const kc = @min(layout.depth, k - k0);
        unpackTile(Format, sources, tile, k0, kc, k);
        for (0..numPanels(rows)) |p| {
            const base: [*]align(64) const u8 = @alignCast(packed_memory + p * parts.bytes);
            const view = parts.view(group, @constCast(base), k0);
            const target: [*]align(64) f32 = @alignCast(out + p * layout.panel_rows * columns);
            if (k0 == 0) kernel.clear(target);
            const count = @min(layout.panel_rows, rows - p * layout.panel_rows);
            kernel.multiply(Format.recipe, tile, &view, count, kc, target);
        }
    }
}

/// Weights of a quant block, which may be several groups.
fn blockLen(comptime Format: type) comptime_int {
    return if (@hasDecl(Format, "block_len")) Format.block_len else Format.recipe.group;
}

/// From a row's first byte to its bytes of the next tile, which is of the next 32 rows where the
/// row ends with this one.
fn offsetAhead(comptime Format: type, sources: *const unpack.Sources, k0: usize, k: usize) usize {
    const next = k0 + layout.depth;
    if (next < k) return next / blockLen(Format) * Format.block_bytes;
    const row_bytes = @intFromPtr(sources[1]) - @intFromPtr(sources[0]);
    return columns * row_bytes;
}

fn unpackTile(
    comptime Format: type,
    sources: *const unpack.Sources,
    tile: *Tile,
    k0: usize,
    kc: usize,
    k: usize,
) void {
    @setEvalBranchQuota(10000);
    const group = Format.recipe.group;
    const tile_bytes = comptime layout.depth / blockLen(Format) * Format.block_bytes;
    var column: usize = 0;
    while (column < columns) : (column += vector.lanes) {
        const strip: unpack.Strip = .{
            .rows = sources[column..][0..vector.lanes],
            .tile = tile,
            .column = column,
            .ahead = .{
                .offset = offsetAhead(Format, sources, k0, k),
                .lines = comptime unpack.Ahead.linesFor(tile_bytes),
            },
        };
        if (@hasDecl(Format, "blocks")) {
            for (0..(kc + 127) / 128) |step| {
                const from = (k0 + step * 128) / blockLen(Format) * Format.block_bytes;
                Format.blocks(strip, from, step * 4, @min(4, kc / 32 - step * 4));
            }
        } else for (0..kc / group) |b| Format.block(strip, (k0 / group + b) * Format.block_bytes, b);
    }
}
