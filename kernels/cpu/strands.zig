//! What both regimes of float weights agree on: rows in steps of 16 lanes, one lane per strand of
//! the sum. F32, F16 and 8-bit rows are f32 lanes; BF16 rows are pairs, whose activations are
//! rounded to BF16 and whose products and sums flush what is below the normal range to zero.
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
        pub const is_scaled = @hasDecl(Q, "is_scaled");

        /// Reads at a time: 8-bit floats are decoded by cache lines.
        pub const reads = if (is_scaled) 64 / elements else 1;

        /// The first `reads` reads of the row at `p` from `first` on, all of one scale.
        pub inline fn readSome(p: [*]const u8, first: usize, scale: f32) [reads]Lanes {
            if (!is_scaled) return .{read(p, first, first + elements, scale)};
            const values: @Vector(64, u32) = @bitCast(Q.load(64, p + first, scale));
            var lanes: [reads]Lanes = undefined;
            inline for (&lanes, 0..) |*some, i| some[0] = simd.part(u32, 16, values, i * 16);
            return lanes;
        }

        /// Elements of the row at `p` from `first` on; those from `k` on are zeros and not read.
        /// `scale` is that of all of them, where they are scaled.
        pub inline fn read(p: [*]const u8, first: usize, k: usize, scale: f32) Lanes {
            const source = p + first * @sizeOf(Q.Block);
            if (first + elements <= k) return whole(source, scale);
            var rest: [elements]Q.Block = @splat(0);
            const blocks: [*]align(1) const Q.Block = @ptrCast(source);
            for (rest[0 .. k - first], blocks) |*element, block| element.* = block;
            return whole(@ptrCast(&rest), scale);
        }
        inline fn whole(p: [*]const u8, scale: f32) Lanes {
            if (is_scaled) return .{@bitCast(Q.load(16, p, scale))};
            return units(16, p);
        }

        /// The n elements or pairs at `p`: of one row, or of n rows that lie interleaved.
        pub inline fn units(comptime n: usize, p: [*]const u8) [steps]@Vector(n, u32) {
            if (!in_pairs) return .{@bitCast(Q.load(n, p))};
            const pairs: @Vector(n, u32) = if (Q.Block == u16)
                simd.load(@Vector(n, u32), p)
            else
                @bitCast(brain.round(2 * n, Q.load(2 * n, p)));
            return if (pair_steps == 1) .{pairs} else brain.split(n, pairs);
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
