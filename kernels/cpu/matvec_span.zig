//! Which weight rows one unit of the rows regime multiplies, in what order, and when their lines are
//! asked for.
const plan = @import("../plan.zig");
const simd = @import("../simd.zig");
const Slice = @import("slices.zig").Slice;
const Scales = @import("../quant/scales.zig").Scales;

/// Of `left` activation rows those that are multiplied next, at most `most`: 5 rows are 3 and 2, not
/// 4 and 1.
pub fn evenPart(left: usize, most: usize) usize {
    const parts = (left + most - 1) / most;
    return (left + parts - 1) / parts;
}

/// Rows first..first+count of each part of a matrix. The rows in work lie a part apart: streams that
/// far apart are all followed by the hardware prefetcher, neighbouring rows are not, and the next
/// unit goes on where the streams of this one end (slices.zig says how many parts).
pub const Span = struct {
    /// The whole matrix, `[num_rows]` rows.
    weight: [*]const u8,
    scales: Scales,
    num_rows: usize,
    first: usize,
    count: usize,
    parts: usize,
    /// Rows from one part to the next.
    height: usize,
    layout: plan.Layout,
    /// How far ahead of the weights in use a line is asked for (tuning.zig).
    prefetch_bytes: usize,

    pub fn of(weight: *const plan.Weight, slice: Slice, prefetch_bytes: usize) Span {
        return .{
            .weight = @ptrFromInt(weight.address),
            .scales = .of(weight),
            .num_rows = weight.rows,
            .first = slice.first,
            .count = slice.count,
            .parts = slice.parts,
            .height = slice.height,
            .layout = weight.layout,
            .prefetch_bytes = prefetch_bytes,
        };
    }

    /// Row first of part i.
    pub fn firstOf(span: *const Span, i: usize) usize {
        return i * span.height + span.first;
    }

    /// The r-th row of part i; past the matrix's end the last row, whose result nobody reads. Its
    /// result is element `i * count + r` of the output.
    pub inline fn row(span: *const Span, i: usize, r: usize) usize {
        return @min(span.firstOf(i) + r, span.num_rows - 1);
    }

    /// Rows of part i that exist.
    pub fn countIn(span: *const Span, i: usize) usize {
        const start = span.firstOf(i);
        return if (start >= span.num_rows) 0 else @min(span.count, span.num_rows - start);
    }
};

/// Weight rows, and where their products with the first input row go, laid out as Span says.
pub const Target = struct { span: Span, out: [*]f32 };

/// What stream `i` of one or two targets reads: a target, and the part of it.
pub inline fn streamOf(targets: []const Target, i: usize) struct { *const Target, usize } {
    const parts = targets[0].span.parts;
    return .{ &targets[i / parts], i % parts };
}

/// Asks for the lines of four rows in work, each once and as evenly as they are used: asking twice
/// costs up to 4 % (Zen 5: F16, Q6_K).
pub const Ahead = struct {
    /// How far ahead of a row's start.
    distance: usize,
    /// Bytes asked for of each row.
    asked: usize = 0,

    /// After each step of `step_bytes` bytes; `used`: bytes of all steps so far.
    pub inline fn ask(
        ahead: *Ahead,
        rows: [4][*]const u8,
        comptime step_bytes: usize,
        used: usize,
    ) void {
        inline for (0..step_bytes / 64) |_| ahead.askLine(rows);
        if (step_bytes % 64 != 0 and ahead.asked < used) ahead.askLine(rows);
    }

    inline fn askLine(ahead: *Ahead, rows: [4][*]const u8) void {
        inline for (rows) |row| simd.prefetchOnce(row + ahead.distance + ahead.asked);
        ahead.asked += 64;
    }
};
