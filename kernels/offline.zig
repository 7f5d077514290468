//! Root of one CPU variant beside executor.zig: what is done to whole matrices outside of steps.
const exports = @import("exports.zig");
const quant = @import("quant/quant.zig");
const quantize = @import("quantize/quantize.zig");
const row_sums = @import("row_sums.zig");

/// Expands `count` weights of GGUF type `type_id` from `source`; false for an unknown type.
fn dequantize(type_id: u32, source: [*]const u8, output: [*]f32, count: u64) callconv(.c) bool {
    return quant.dequantize(type_id, source, output[0..count]);
}

/// Sums over rows first..first + count of a matrix.
fn sumRows(job: *const row_sums.Job, first: u64, count: u64, thread: u32) callconv(.c) void {
    row_sums.run(job, first, count, thread);
}

/// Quantises rows of a matrix; false and `fault` at the first element that the type cannot hold.
fn quantizeRows(
    job: *const quantize.Job,
    first: u64,
    count: u64,
    fault: *quantize.Fault,
) callconv(.c) bool {
    return quantize.quantizeRows(job, first, count, fault);
}

comptime {
    @export(&dequantize, exports.named("dequantize"));
    @export(&quantizeRows, exports.named("quantize_rows"));
    @export(&sumRows, exports.named("sum_rows"));
}
