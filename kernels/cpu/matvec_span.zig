//! Which weight rows one unit of the rows regime multiplies, in what order, and when their lines are
//! asked for.
const plan = @import("../plan.zig");
const simd = @import("../simd.zig");
const Scales = @import("../quant/scales.zig").Scales;

/// Rows first..first+count of each quarter of a matrix. The four rows in work lie a quarter apart:
/// streams that far apart are all followed by the hardware prefetcher, neighbouring rows are not,
/// and the next unit goes on where the streams of this one end.
pub const Span = struct {
    /// The whole matrix, `[num_rows]` rows.
    weight: [*]const u8,
    scales: Scales,
    num_rows: usize,
    first: usize,
    count: usize,
    /// How far ahead of the weights in use a line is asked for (tuning.zig).
    prefetch_bytes: usize,

    pub fn of(weight: *const plan.Weight, first: usize, count: usize, prefetch_bytes: usize) Span {
        return .{
            .weight = @ptrFromInt(weight.address),
            .scales = .of(weight),
            .num_rows = weight.rows,
            .first = first,
            .count = count,
            .prefetch_bytes = prefetch_bytes,
        };
    }

    pub fn quarterRows(num_rows: usize) usize {
        return (num_rows + 3) / 4;
    }

    /// The r-th row of quarter i; past the matrix's end the last row, whose result nobody reads.
    /// Its result is element `i * count + r` of the output.
    pub inline fn row(span: *const Span, i: usize, r: usize) usize {
        const index = i * quarterRows(span.num_rows) + span.first + r;
        return @min(index, span.num_rows - 1);
    }

    /// Rows of quarter i that exist.
    pub fn countIn(span: *const Span, i: usize) usize {
        const start = i * quarterRows(span.num_rows) + span.first;
        return if (start >= span.num_rows) 0 else @min(span.count, span.num_rows - start);
    }
};

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
