//! What happens to finished products before they reach the arena: the weights' gain, bias, residual
//! addition, or the gate's activation times the up projection.
const plan = @import("../plan.zig");
const activations = @import("activations.zig");
const rows_file = @import("rows.zig");
const loadUpTo = rows_file.loadUpTo;
const storeUpTo = rows_file.storeUpTo;

/// Where one product of an op goes. `output` is `[rows, width]`.
pub const Epilogue = struct {
    pub const Kind = enum { store, accumulate, gated };

    kind: Kind,
    output: [*]f32,
    width: usize,
    gain: f32,
    bias: ?[*]const f32 = null,
    /// Only of `gated`, whose second product is the up projection.
    activation: plan.Gate = .silu,
    up_gain: f32 = 1,
    up_bias: ?[*]const f32 = null,

    /// Finishes columns first_column..+n of rows first_row..+rows. `values` (and `up`, for gated
    /// products) are `[rows][stride]`, element 0 being the first column.
    pub fn apply(
        epilogue: *const Epilogue,
        values: [*]const f32,
        up: [*]const f32,
        stride: usize,
        first_row: usize,
        rows: usize,
        first_column: usize,
        n: usize,
    ) void {
        for (0..rows) |m| {
            const start = (first_row + m) * epilogue.width + first_column;
            const target = epilogue.output + start;
            var at: usize = 0;
            while (at < n) : (at += 16) {
                const count = @min(16, n - at);
                const column = first_column + at;
                var v = loadUpTo(values + m * stride + at, count);
                v *= @splat(epilogue.gain);
                if (epilogue.bias) |bias| v += loadUpTo(bias + column, count);
                switch (epilogue.kind) {
                    .store => {},
                    .accumulate => v = loadUpTo(target + at, count) + v,
                    .gated => {
                        var u = loadUpTo(up + m * stride + at, count);
                        u *= @splat(epilogue.up_gain);
                        if (epilogue.up_bias) |bias| u += loadUpTo(bias + column, count);
                        v = activations.gated(epilogue.activation, v, u);
                    },
                }
                storeUpTo(target + at, v, count);
            }
        }
    }
};
