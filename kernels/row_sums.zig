//! Sums over each row of a matrix in whatever type: its square, and its products with some vectors.
//! For what is made of the weights at load, with more precision than products in steps have.
const simd = @import("simd.zig");
const quant = @import("quant/quant.zig");
const rows_file = @import("cpu/rows.zig");
const Floats = simd.Floats;

pub const Job = extern struct {
    /// `[rows, cols]` of GGUF type `type_id`.
    source: u64,
    /// f32 `[num_vectors, cols]`
    vectors: u64,
    /// f64 `[rows, 1 + num_vectors]`: the square, then the products.
    output: u64,
    /// f32 `[num_threads, cols]`: one expanded row each.
    scratch: u64,
    rows: u64,
    cols: u64,
    type_id: u32,
    num_vectors: u32,
};

/// Elements that are summed in f32 before they join a sum in f64.
const block = 512;

/// Rows first..first + count on one thread.
pub fn run(job: *const Job, first: u64, count: u64, thread: u32) void {
    const row_bytes = quant.rowBytes(job.type_id, job.cols);
    const scratch: [*]f32 = @ptrFromInt(job.scratch);
    const expanded = (scratch + thread * job.cols)[0..job.cols];
    const vectors: [*]const f32 = @ptrFromInt(job.vectors);
    const all: [*]f64 = @ptrFromInt(job.output);
    for (first..first + count) |row| {
        const source: [*]const u8 = @ptrFromInt(job.source + row * row_bytes);
        _ = quant.dequantize(job.type_id, source, expanded);
        const output = all + row * (1 + @as(usize, job.num_vectors));
        output[0] = product(expanded, expanded.ptr);
        for (0..job.num_vectors) |v| output[1 + v] = product(expanded, vectors + v * job.cols);
    }
}

fn product(x: []const f32, y: [*]const f32) f64 {
    var total: f64 = 0;
    var start: usize = 0;
    while (start < x.len) : (start += block) {
        const end = @min(start + block, x.len);
        var sums: [2]Floats = @splat(@splat(0));
        var i = start;
        while (i + 32 <= end) : (i += 32) {
            inline for (0..2) |s| {
                const a = simd.load(Floats, x.ptr + i + 16 * s);
                sums[s] = simd.fma(Floats, a, simd.load(Floats, y + i + 16 * s), sums[s]);
            }
        }
        while (i < end) : (i += 16) {
            const n = @min(16, end - i);
            const a = rows_file.loadUpTo(x.ptr + i, n);
            sums[0] = simd.fma(Floats, a, rows_file.loadUpTo(y + i, n), sums[0]);
        }
        total += simd.sumHalving(sums[0] + sums[1]);
    }
    return total;
}
