//! How the products of all experts are cut into units that threads share.
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const tile_gemm = @import("tile_gemm.zig");
const slices_file = @import("slices.zig");
const Slices = slices_file.Slices;
const Inputs = @import("expert_inputs.zig").Inputs;
const Run = worker_file.Run;
const Worker = worker_file.Worker;

const columns = tile_gemm.columns;

/// How the work is cut: tiled experts in panels, then the others in slices.
pub const Units = struct {
    num_tiled: usize,
    num_experts: usize,
    panels_each: usize,
    /// Of an expert with few rows.
    slices: Slices,

    pub const Place = union(enum) {
        panel: struct { expert: usize, first: usize },
        slice: struct { expert: usize, slice: slices_file.Slice },
    };

    /// `row_bytes` of all matrices that a unit multiplies with, one of each set.
    pub fn of(
        inputs: *const Inputs,
        worker: *const Worker,
        sets: []const []const plan.Weight,
        row_bytes: usize,
    ) Units {
        const batches = &inputs.batches;
        const num_tiled = batches.num_tiled;
        const is_few = num_tiled < batches.experts.len;
        const few_rows = if (is_few) batches.pairsOf(num_tiled).len else 1;
        return .{
            .num_tiled = num_tiled,
            .num_experts = batches.experts.len,
            .panels_each = (sets[0][0].rows + columns - 1) / columns,
            .slices = .of(&worker.shared.tuning, sets, .of(few_rows), row_bytes),
        };
    }

    fn count(units: *const Units) usize {
        const tiled = units.num_tiled * units.panels_each;
        return tiled + (units.num_experts - units.num_tiled) * units.slices.count();
    }

    /// The first place among the run's units, and how many units it takes.
    fn first(units: *const Units, run: Run) struct { Place, u32 } {
        const tiled = units.num_tiled * units.panels_each;
        if (run.begin < tiled) return .{ .{ .panel = .{
            .expert = run.begin / units.panels_each,
            .first = run.begin % units.panels_each * columns,
        } }, 1 };
        const each = units.slices.count();
        const expert = (run.begin - tiled) / each;
        const begin = (run.begin - tiled) % each;
        const end = @min(begin + run.end - run.begin, each);
        return .{ .{ .slice = .{
            .expert = units.num_tiled + expert,
            .slice = units.slices.at(begin, end),
        } }, @intCast(end - begin) };
    }

    /// Hands the units out among the threads, neighbouring slices of an expert as one.
    pub fn share(units: *const Units, worker: *Worker) Sharing {
        return .{ .units = units, .phase = worker.phase(@intCast(units.count())) };
    }

    pub const Sharing = struct {
        units: *const Units,
        phase: worker_file.Phase,
        run: Run = .{ .begin = 0, .end = 0 },

        pub fn next(sharing: *Sharing) ?Place {
            if (sharing.run.begin == sharing.run.end) {
                sharing.run = sharing.phase.nextRun(sharing.units.slices.most) orelse return null;
            }
            const place, const num_units = sharing.units.first(sharing.run);
            sharing.run.begin += num_units;
            return place;
        }
    };
};
