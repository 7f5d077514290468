//! How ops that take values one by one share their rows: units of whole rows, 16 values at a time.
const simd = @import("../simd.zig");
const worker_file = @import("../worker.zig");
const Step = worker_file.Step;
const Worker = worker_file.Worker;
const Floats = simd.Floats;

/// Elements in one unit of work; narrow rows are grouped.
const elements_per_unit = 8192;

/// Hands out the rows of a tensor among the threads.
pub const RowPhase = struct {
    phase: worker_file.Phase,
    num_rows: u32,
    rows_per_unit: u32,

    pub fn of(step: *const Step, tensor: u32, worker: *Worker) RowPhase {
        const width = step.tensors[tensor].width;
        const num_rows = step.rows(tensor);
        const rows_per_unit = @max(1, elements_per_unit / width);
        return .{
            .phase = worker.phase((num_rows + rows_per_unit - 1) / rows_per_unit),
            .num_rows = num_rows,
            .rows_per_unit = rows_per_unit,
        };
    }

    /// The next rows, first to end.
    pub fn next(rows: *RowPhase) ?struct { usize, usize } {
        const unit: usize = rows.phase.next() orelse return null;
        const first = unit * rows.rows_per_unit;
        return .{ first, @min(first + rows.rows_per_unit, rows.num_rows) };
    }
};

/// 16 values from `p` on, or the `count` that there are.
pub inline fn loadUpTo(p: [*]const f32, count: usize) Floats {
    return if (count == 16) simd.load(Floats, p) else simd.loadFirst(p, count);
}
pub inline fn storeUpTo(p: [*]f32, v: Floats, count: usize) void {
    if (count == 16) return simd.store(p, v);
    const elements: [16]f32 = v;
    for (0..count) |i| p[i] = elements[i];
}
