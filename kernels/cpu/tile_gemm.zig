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
const tile_sources = @import("tile_sources.zig");
const Unpacker = @import("unpackers.zig").Unpacker;
const interleave = @import("../interleave.zig");
const Panel = layout.Panel;
const Tile = layout.Tile;

/// Output columns (weight rows) of one panel.
pub const columns = layout.columns;
/// Activation rows of one packed panel.
pub const panel_rows = layout.panel_rows;

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
    const start: [*]const u8 = @ptrFromInt(weight.address + n0 * row_bytes);
    const tile: *Tile = @ptrCast(scratch.ptr);
    switch (known) {
        inline else => |weight_type| if (comptime Unpacker(weight_type)) |Format| {
            if (weight.layout == .rows) {
                const sources: tile_sources.Rows = .of(start, row_bytes, n);
                compute(Format, &sources, tile, rows, k, packed_memory, out);
            } else if (comptime interleave.hasLayout(weight_type)) {
                const sources: tile_sources.Panels(quant.Format(weight_type)) = .of(start, row_bytes, n);
                compute(Format, &sources, tile, rows, k, packed_memory, out);
            } else unreachable;
        } else unreachable,
    }
}

fn compute(
    comptime Format: type,
    sources: anytype,
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
        sources.unpackTile(Format, tile, k0, kc, k);
        tile.pairDwords(kc);
        for (0..numPanels(rows)) |p| {
            const base: [*]align(64) const u8 = @alignCast(packed_memory + p * parts.bytes);
            const view = parts.view(group, @constCast(base), k0);
            const target: [*]align(64) f32 = @alignCast(out + p * layout.panel_rows * columns);
            if (k0 == 0) kernel.clear(target);
            const count = @min(layout.panel_rows, rows - p * layout.panel_rows);
            kernel.multiply(Format.recipe, tile, &view, count, kc, target);
            if (k0 + kc == k) kernel.finish(target);
        }
    }
}
