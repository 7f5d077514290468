//! How ops that take values one by one share their rows: units of whole rows, 16 values at a time.
const std = @import("std");
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

/// 16 values from `p` on, or the `count` that there are and zeros.
pub inline fn loadUpTo(p: [*]const f32, count: usize) Floats {
    if (count == 16) return simd.load(Floats, p);
    if (simd.has_avx512) return @"llvm.masked.load.v16f32.p0"(p, 4, firstLanes(count), @splat(0));
    var elements: [16]f32 = @splat(0);
    for (0..count) |i| elements[i] = p[i];
    return elements;
}
/// Stores 16 values, or the first `count` of them.
pub inline fn storeUpTo(p: [*]f32, v: Floats, count: usize) void {
    if (count == 16) return simd.store(p, v);
    if (simd.has_avx512) return @"llvm.masked.store.v16f32.p0"(v, p, 4, firstLanes(count));
    const elements: [16]f32 = v;
    for (0..count) |i| p[i] = elements[i];
}
// Only with AVX-512: LLVM 21 crashes on these where a mask is not a register of its own.
extern fn @"llvm.masked.load.v16f32.p0"([*]const f32, i32, Mask, Floats) Floats;
extern fn @"llvm.masked.store.v16f32.p0"(Floats, [*]f32, i32, Mask) void;
const Mask = @Vector(16, bool);

inline fn firstLanes(count: usize) Mask {
    return std.simd.iota(u32, 16) < @as(@Vector(16, u32), @splat(@intCast(count)));
}
