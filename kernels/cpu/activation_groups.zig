//! An op's input laid out once for each activation group that its weights need: in either regime
//! all rows for one group, then all for the next. Every size is whole cache lines.
const std = @import("std");
const plan = @import("../plan.zig");
const quant = @import("../quant/quant.zig");
const matvec = @import("matvec.zig");
const tile_gemm = @import("tile_gemm.zig");

/// Which groups an op's weights need.
pub const Groups = struct {
    ids: [quant.groups.len]u32 = undefined,
    count: usize = 0,

    pub fn add(groups: *Groups, weights: []const plan.Weight) void {
        for (weights) |weight| {
            const id = quant.group(quant.fromId(weight.type).?);
            if (std.mem.indexOfScalar(u32, groups.all(), id) != null) continue;
            groups.ids[groups.count] = id;
            groups.count += 1;
        }
    }

    pub fn all(groups: *const Groups) []const u32 {
        return groups.ids[0..groups.count];
    }

    fn before(groups: *const Groups, group: u32) Groups {
        const index = std.mem.indexOfScalar(u32, groups.all(), group).?;
        return .{ .ids = groups.ids, .count = index };
    }

    /// Bytes of `LaidRows`.
    pub fn rowsBytes(groups: *const Groups, rows: usize, k: usize) usize {
        var sum: usize = 0;
        for (groups.all()) |group| sum += rows * matvec.inputBytes(group, k);
        return sum;
    }

    /// Bytes of `LaidPanels`.
    pub fn panelsBytes(groups: *const Groups, rows: usize, k: usize) usize {
        var sum: usize = 0;
        for (groups.all()) |group| sum += tile_gemm.packedBytes(group, rows, k);
        return sum;
    }

    /// Private memory of one thread in `tile_gemm.computePanel` of up to `rows` rows.
    pub fn kernelBytes(groups: *const Groups, rows: usize, k: usize) usize {
        var most: usize = 0;
        for (groups.all()) |group| most = @max(most, tile_gemm.threadBytes(group, rows, k));
        return most;
    }
};

/// The rows regime: `count` rows of width `k`.
pub const LaidRows = struct {
    groups: *const Groups,
    memory: [*]align(64) u8,
    count: usize,
    k: usize,
    /// All float weights lie interleaved.
    have_panels: bool = false,

    pub fn lay(rows: *const LaidRows, row: usize, x: [*]const f32) void {
        var memory = rows.memory;
        for (rows.groups.all()) |group| {
            const row_bytes = matvec.inputBytes(group, rows.k);
            const own = x[0..rows.k];
            if (rows.areBeside(group)) {
                matvec.layBeside(group, own, row, rows.count, memory);
            } else matvec.layInput(group, own, @alignCast(memory + row * row_bytes));
            memory = @alignCast(memory + rows.count * row_bytes);
        }
    }

    /// Whether the rows for `group` lie side by side.
    pub fn areBeside(rows: *const LaidRows, group: u32) bool {
        return rows.have_panels and matvec.wantsBeside(group, rows.count);
    }

    /// The rows for `group` from `first` on.
    pub fn of(rows: *const LaidRows, group: u32, first: usize) [*]align(64) u8 {
        const start = rows.groups.before(group).rowsBytes(rows.count, rows.k);
        return @alignCast(rows.memory + start + first * matvec.inputBytes(group, rows.k));
    }
};

/// The tile regime: `count` rows of width `k`, in panels.
pub const LaidPanels = struct {
    groups: *const Groups,
    memory: [*]align(64) u8,
    count: usize,
    k: usize,

    /// Packs at most `panel_rows` rows.
    pub fn pack(panels: *const LaidPanels, panel: usize, sources: []const [*]const f32) void {
        var memory = panels.memory;
        for (panels.groups.all()) |group| {
            tile_gemm.packPanel(group, panel, sources, panels.k, memory);
            memory = @alignCast(memory + tile_gemm.packedBytes(group, panels.count, panels.k));
        }
    }

    /// The panels for `group` from row `first` on, which begins one.
    pub fn of(panels: *const LaidPanels, group: u32, first: usize) [*]align(64) u8 {
        const start = panels.groups.before(group).panelsBytes(panels.count, panels.k);
        const own = tile_gemm.packedBytes(group, first, panels.k);
        return @alignCast(panels.memory + start + own);
    }
};
