//! How the products of all experts are cut into units that threads share, and the memory of one.
const worker_file = @import("../worker.zig");
const tile_gemm = @import("tile_gemm.zig");
const rounds_file = @import("rounds.zig");
const expert_inputs = @import("expert_inputs.zig");
const Tuning = @import("../tuning.zig").Tuning;
const Rounds = rounds_file.Rounds;
const Inputs = expert_inputs.Inputs;
const Layout = expert_inputs.Layout;
const Worker = worker_file.Worker;

const columns = tile_gemm.columns;

/// Bytes of one product of a unit: panels of an expert's rows, or few rows of quarters.
pub fn valueBytes(layout: *const Layout) usize {
    const max_rows = layout.limits.max_rows;
    const rows = tile_gemm.numPanels(max_rows) * tile_gemm.panel_rows;
    const few: usize = @min(max_rows, Tuning.max_rows_regime);
    return @max(rows * columns, few * 4 * rounds_file.max_quarter_rows) * @sizeOf(f32);
}

/// How the work is cut: tiled experts in panels, then the others in slices, of which only those of
/// the last expert become short.
pub const Units = struct {
    num_tiled: usize,
    num_experts: usize,
    panels_each: usize,
    /// Of an expert with few rows that is not the last, and of the last.
    middle: Rounds,
    last: Rounds,

    pub const Place = union(enum) {
        panel: struct { expert: usize, first: usize },
        slice: struct { expert: usize, slice: rounds_file.Slice },
    };

    /// `row_bytes` of all matrices that a unit multiplies with, each of `width` rows.
    pub fn of(
        inputs: *const Inputs,
        worker: *const Worker,
        width: usize,
        row_bytes: usize,
    ) Units {
        const batches = &inputs.batches;
        const num_tiled = batches.num_tiled;
        const is_few = num_tiled < batches.experts.len;
        const rows = if (is_few) batches.pairsOf(num_tiled).len else 1;
        const tuning = &worker.shared.tuning;
        const last: Rounds = .of(tuning, worker.count, width, rows, row_bytes);
        return .{
            .num_tiled = num_tiled,
            .num_experts = batches.experts.len,
            .panels_each = (width + columns - 1) / columns,
            .middle = last.withoutEnd(),
            .last = last,
        };
    }

    pub fn count(units: *const Units) usize {
        const tiled = units.num_tiled * units.panels_each;
        const num_few = units.num_experts - units.num_tiled;
        if (num_few == 0) return tiled;
        return tiled + (num_few - 1) * units.middle.numUnits() + units.last.numUnits();
    }

    pub fn at(units: *const Units, index: usize) Place {
        const tiled = units.num_tiled * units.panels_each;
        if (index < tiled) return .{ .panel = .{
            .expert = index / units.panels_each,
            .first = index % units.panels_each * columns,
        } };
        const each = units.middle.numUnits();
        const expert = @min(units.num_tiled + (index - tiled) / each, units.num_experts - 1);
        const left = index - tiled - (expert - units.num_tiled) * each;
        const rounds = if (expert + 1 < units.num_experts) units.middle else units.last;
        return .{ .slice = .{ .expert = expert, .slice = rounds.at(left).? } };
    }
};
