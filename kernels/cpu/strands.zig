//! What both regimes of float weights agree on: rows in steps of 16 lanes, one lane per strand of
//! the sum. F32 and F16 rows are f32 lanes; BF16 rows are pairs, whose activations are rounded to
//! BF16 and whose products and sums flush what is below the normal range to zero.
const std = @import("std");
const simd = @import("../simd.zig");
const brain = @import("../brain.zig");
const quant = @import("../quant/quant.zig");

/// Sixteen f32, or sixteen pairs of BF16.
pub const Step = @Vector(16, u32);
pub const step_bytes = @sizeOf(Step);

/// Where no instruction multiplies pairs, one step of pairs is two of f32: the upper elements,
/// then the lower, which is the order of the instruction.
const pair_steps = if (brain.has_dot) 1 else 2;

/// Steps of a row of `k` elements; the last is padded with zeros.
pub fn numSteps(group: u32, k: usize) usize {
    return switch (group) {
        0 => (k + 15) / 16,
        quant.brain_group => (k + 31) / 32 * pair_steps,
        else => unreachable,
    };
}

/// Reads the rows of a weight type as steps.
pub fn Weights(comptime t: quant.Type) type {
    return Rows(quant.Format(t), t == .bf16);
}
/// Reads f32 activations as the steps that weights of `group` are multiplied by.
pub fn Activations(comptime group: u32) type {
    return Rows(quant.Format(.f32), group == quant.brain_group);
}

fn Rows(comptime Q: type, comptime in_pairs: bool) type {
    return struct {
        pub const Format = Q;
        pub const group: u32 = if (in_pairs) quant.brain_group else 0;
        /// Elements that are read together, and the steps that they make.
        pub const elements = if (in_pairs) 32 else 16;
        pub const steps = if (in_pairs) pair_steps else 1;
        pub const Lanes = [steps]Step;

        /// Elements of the row at `p` from `first` on; those from `k` on are zeros and not read.
        pub inline fn read(p: [*]const u8, first: usize, k: usize) Lanes {
            const source = p + first * @sizeOf(Q.Block);
            if (first + elements <= k) return whole(source);
            var rest: [elements]Q.Block = @splat(0);
            const blocks: [*]align(1) const Q.Block = @ptrCast(source);
            for (rest[0 .. k - first], blocks) |*element, block| element.* = block;
            return whole(@ptrCast(&rest));
        }
        inline fn whole(p: [*]const u8) Lanes {
            if (!in_pairs) return .{@bitCast(Q.load(16, p))};
            const pairs: Step = if (Q.Block == u16)
                simd.load(Step, p)
            else
                @bitCast(brain.round(32, Q.load(32, p)));
            if (pair_steps == 1) return .{pairs};
            return @bitCast(brain.split(pairs));
        }

        /// acc + w * x of one step, or of as many lanes as the vectors have.
        pub inline fn multiplyAdd(
            comptime n: usize,
            acc: @Vector(n, f32),
            w: @Vector(n, u32),
            x: @Vector(n, u32),
        ) @Vector(n, f32) {
            if (in_pairs and brain.has_dot) return brain.dot(acc, @bitCast(w), @bitCast(x));
            const fma = if (in_pairs) brain.fma else simd.fma;
            return fma(@Vector(n, f32), @bitCast(w), @bitCast(x), acc);
        }
    };
}
