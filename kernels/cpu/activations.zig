//! Activation functions of 16 values, and how a gate meets its up projection.
const simd = @import("../simd.zig");
const plan = @import("../plan.zig");
const exp_file = @import("exp.zig");
const Floats = simd.Floats;

/// The gate's activation times u.
pub fn gated(gate: plan.Gate, g: Floats, u: Floats) Floats {
    return switch (gate) {
        .swiglu_oai => swigluOai(g, u),
        inline else => |tag| apply(@field(plan.UnaryFunction, @tagName(tag)), g, 0) * u,
    };
}

/// function(x), with the parameter of those that have one.
pub fn apply(function: plan.UnaryFunction, x: Floats, parameter: f32) Floats {
    const zero: Floats = @splat(0);
    return switch (function) {
        .sigmoid => one / (one + exp(-x)),
        .scale => x * @as(Floats, @splat(parameter)),
        .softcap => blk: {
            const limit: Floats = @splat(parameter);
            break :blk limit * exp_file.tanh(16, x / limit);
        },
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

/// gpt-oss's clamp and its sharper sigmoid (model card, arXiv 2508.10925).
inline fn swigluOai(g: Floats, u: Floats) Floats {
    const limit: Floats = @splat(7);
    const x = @select(f32, g > limit, limit, g);
    var y = @select(f32, u > limit, limit, u);
    y = @select(f32, y < -limit, -limit, y);
    return x / (one + exp(x * @as(Floats, @splat(-1.702)))) * (y + one);
}

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
