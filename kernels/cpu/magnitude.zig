//! magnitude: what an adapter that sets the lengths of a matrix' rows (DoRA, arXiv 2402.09353) adds
//! to a product: each row of W + σ B A takes the adapter's length instead of its own. Its own
//! follows from three numbers made at load, whatever the scale.
const simd = @import("../simd.zig");
const plan = @import("../plan.zig");
const worker_file = @import("../worker.zig");
const rows_file = @import("rows.zig");
const Floats = simd.Floats;
const Step = worker_file.Step;
const Worker = worker_file.Worker;

pub fn run(step: *const Step, op: *const plan.Magnitude, worker: *Worker) void {
    const tensor = step.tensors[op.output];
    const width: usize = step.weights[op.lengths].cols;
    const num_slots = tensor.width / width;
    const is_shared = step.weights[op.lengths].rows == 4;
    const all = step.array(f32, step.data.adapter_scales);
    const scales = all + @as(usize, op.adapter) * step.header.max_tokens;
    const output_rows = step.array(u32, step.data.output_rows);
    const routing = if (op.slot_routing == plan.none) null else step.tensor(op.slot_routing);
    var rows: rows_file.RowPhase = .of(step, op.output, worker);
    while (rows.next()) |range| {
        const first, const end = range;
        for (first..end) |r| {
            const scale = scales[if (tensor.rows == .outputs) output_rows[r] else r];
            const start = r * tensor.width;
            const output = step.tensor(op.output) + start;
            if (scale == 0) {
                @memset(output[0..tensor.width], 0);
                continue;
            }
            const input = step.tensor(op.input) + start;
            for (0..num_slots) |slot| {
                const matrix: usize = if (is_shared)
                    0
                else if (routing) |ids|
                    @intFromFloat(ids[2 * r * num_slots + slot])
                else
                    slot;
                const part: Part = .{
                    .lengths = step.vector(op.lengths).? + 4 * matrix * width,
                    .bias = if (step.vector(op.bias)) |bias| bias + matrix * width else null,
                    .width = width,
                    .sigma = scale * op.gain,
                };
                part.change(input + slot * width, output + slot * width);
            }
        }
    }
}

/// One matrix' part of a row.
const Part = struct {
    /// `[4, width]`
    lengths: [*]const f32,
    bias: ?[*]const f32,
    width: usize,
    sigma: f32,

    fn change(part: *const Part, input: [*]const f32, output: [*]f32) void {
        const sigma: Floats = @splat(part.sigma);
        const zero: Floats = @splat(0);
        var i: usize = 0;
        while (i < part.width) : (i += 16) {
            const count = @min(16, part.width - i);
            const wanted = part.row(0, i, count);
            const slope = simd.fma(Floats, part.row(3, i, count), sigma, part.row(2, i, count));
            const square = simd.fma(Floats, slope, sigma, part.row(1, i, count));
            const c = @select(f32, square > zero, wanted / @sqrt(square), zero);
            var base = rows_file.loadUpTo(input + i, count);
            if (part.bias) |bias| base -= rows_file.loadUpTo(bias + i, count);
            const change_of_base = (c - @as(Floats, @splat(1))) * base;
            const y = simd.fma(Floats, c, rows_file.loadUpTo(output + i, count), change_of_base);
            rows_file.storeUpTo(output + i, y, count);
        }
    }

    fn row(part: *const Part, index: usize, first: usize, count: usize) Floats {
        return rows_file.loadUpTo(part.lengths + index * part.width + first, count);
    }
};
