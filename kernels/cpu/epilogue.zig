//! What happens to finished products before they reach the arena: bias, residual addition, or the
//! gate's activation times the up projection.
const simd = @import("../simd.zig");
const plan = @import("../plan.zig");
const exp_file = @import("exp.zig");
const Floats = simd.Floats;

/// Where one product of an op goes. `output` is `[rows, width]`.
pub const Epilogue = struct {
    pub const Kind = enum { store, accumulate, gated };

    kind: Kind,
    output: [*]f32,
    width: usize,
    bias: ?[*]const f32 = null,
    /// Only of `gated`, whose second product is the up projection.
    activation: plan.Activation = .silu,
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
                if (epilogue.bias) |bias| v += loadUpTo(bias + column, count);
                switch (epilogue.kind) {
                    .store => {},
                    .accumulate => v = loadUpTo(target + at, count) + v,
                    .gated => {
                        var u = loadUpTo(up + m * stride + at, count);
                        if (epilogue.up_bias) |bias| u += loadUpTo(bias + column, count);
                        v = activate(epilogue.activation, v) * u;
                    },
                }
                storeUpTo(target + at, v, count);
            }
        }
    }
};

inline fn loadUpTo(p: [*]const f32, count: usize) Floats {
    return if (count == 16) simd.load(Floats, p) else simd.loadFirst(p, count);
}
inline fn storeUpTo(p: [*]f32, v: Floats, count: usize) void {
    if (count == 16) return simd.store(p, v);
    const elements: [16]f32 = v;
    for (0..count) |i| p[i] = elements[i];
}

fn activate(activation: plan.Activation, x: Floats) Floats {
    const zero: Floats = @splat(0);
    return switch (activation) {
        .silu => x / (one + exp(-x)),
        .gelu_tanh => geluTanh(x),
        .gelu_erf => geluErf(x),
        .relu => @select(f32, x < zero, zero, x),
        .relu_squared => blk: {
            const positive = @select(f32, x < zero, zero, x);
            break :blk positive * positive;
        },
    };
}

const one: Floats = @splat(1);

inline fn exp(x: Floats) Floats {
    return exp_file.exp(16, x);
}

/// 0.5 x (1 + tanh(u)) with u = sqrt(2/pi) (x + 0.044715 x^3), written as x * sigmoid(2u), which
/// does not cancel for negative x.
inline fn geluTanh(x: Floats) Floats {
    const cubic = simd.fma(Floats, x * x * x, @splat(0.044715), x);
    return x / (one + exp(cubic * @as(Floats, @splat(-1.5957691216057308))));
}

/// x times the normal distribution function, through erfc(z) = t exp(-z^2 + P(t)), t = 1 / (1 +
/// z/2), a Chebyshev fit with relative error below 1.2e-7 for all z >= 0 (Numerical Recipes 6.2).
inline fn geluErf(x: Floats) Floats {
    const z = @abs(x) * @as(Floats, @splat(0.7071067811865476));
    const t = one / simd.fma(Floats, z, @splat(0.5), one);
    var p: Floats = @splat(0.17087277);
    inline for (.{
        -0.82215223, 1.48851587, -1.13520398, 0.27886807,  -0.18628806,
        0.09678418,  0.37409196, 1.00002368,  -1.26551223,
    }) |coefficient| p = simd.fma(Floats, p, t, @splat(coefficient));
    const half: Floats = @splat(0.5);
    const tail = half * t * exp(simd.fma(Floats, -z, z, p));
    const is_negative = x < @as(Floats, @splat(0));
    return x * @select(f32, is_negative, tail, one - tail);
}
