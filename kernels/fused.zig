//! Fused multiply-add of f32 for CPUs that have no instruction for it, to the bit. The product of
//! two f32 is exact in f64, so that a lane can only differ where the sum is not exact there and
//! looks like a tie of f32: such lanes are found, and computed again from a sum rounded to odd.
const std = @import("std");
const builtin = @import("builtin");

/// The operations on vectors of `n`.
pub fn Fused(comptime n: comptime_int) type {
    return struct {
        const Floats = @Vector(n, f32);
        const Doubles = @Vector(n, f64);
        const Words = @Vector(n, u32);
        const Signed = @Vector(n, i32);
        const Wide = @Vector(n, u64);
        const none: Words = @splat(0);
        const all: Words = @splat(0xffffffff);

        /// a * b + c with one rounding; `b` is a vector, or what all lanes are multiplied by.
        pub inline fn multiplyAdd(a: Floats, b: anytype, c: Floats) Floats {
            // Kernels unroll this many times.
            @setEvalBranchQuota(100_000);
            const is_scalar = @TypeOf(b) == f32;
            // One conversion of a scalar serves all registers.
            const factor: Doubles = if (is_scalar) @splat(b) else b;
            const sum = @as(Doubles, a) * factor + @as(Doubles, c);
            const result: Floats = @floatCast(sum);
            if (anySet(looksTied(sum, result))) {
                @branchHint(.unlikely);
                return roundedOnce(a, if (is_scalar) @splat(b) else b, c);
            }
            return result;
        }

        /// `multiplyAdd` where a * b has at most 24 significant bits, as products of two BF16
        /// have: it is exact in f32 too, unless it leaves the range of f32.
        pub inline fn addExactProduct(a: Floats, b: Floats, c: Floats) Floats {
            @setEvalBranchQuota(100_000);
            const result = a * b + c;
            // Beside a sum from 2^-100 on, a product below 2^-126 is nothing, rounded or flushed.
            const smallest: u32 = @bitCast(@as(f32, 0x1p-100));
            const infinite: u32 = @bitCast(std.math.inf(f32));
            const magnitude = @as(Words, @bitCast(result)) & @as(Words, @splat(0x7fffffff));
            if (anySet(outside(magnitude, smallest, infinite - 1))) {
                @branchHint(.unlikely);
                return roundedOnce(a, b, c);
            }
            return result;
        }

        /// Lanes, as words of all ones, where rounding an inexact sum again may take the wrong
        /// side: half way between two normal f32, or a result that is subnormal or next to it,
        /// but not zero (an inexact sum is never so small).
        inline fn looksTied(sum: Doubles, result: Floats) Words {
            const words: @Vector(2 * n, u32) = @bitCast(sum);
            const low = @shuffle(u32, words, undefined, low_words);
            const rest = low & @as(Words, @splat((1 << 29) - 1));
            const ties = @select(u32, rest == @as(Words, @splat(1 << 28)), all, none);
            const doubled = @as(Words, @bitCast(result)) << @splat(1);
            return ties | ~outside(doubled, 2, 2 << 23);
        }
        const low_words = blk: {
            const first: i32 = if (builtin.cpu.arch.endian() == .little) 0 else 1;
            break :blk std.simd.iota(i32, n) * @as(Signed, @splat(2)) + @as(Signed, @splat(first));
        };

        /// Lanes, as words of all ones, that are not in first ..= last; by a signed comparison,
        /// since SSE has no other.
        inline fn outside(x: Words, comptime first: u32, comptime last: u32) Words {
            const lowest: u32 = 1 << 31;
            const moved: Signed = @bitCast(x +% @as(Words, @splat(lowest -% first)));
            const end: Signed = @splat(@bitCast(lowest +% (last - first)));
            return @select(u32, moved > end, all, none);
        }

        inline fn anySet(lanes: Words) bool {
            // Down to one register, whose signs are one instruction away.
            if (n > 4) {
                const halves: [2]@Vector(n / 2, u32) = @bitCast(lanes);
                return Fused(n / 2).anySet(halves[0] | halves[1]);
            }
            return @reduce(.Or, @as(Signed, @bitCast(lanes)) < @as(Signed, @splat(0)));
        }

        /// a * b + c with one rounding: the f64 sum is rounded to odd (the neighbour with an odd
        /// last bit, when it is not exact), which rounding to f32 cannot mistake for a tie (Boldo
        /// and Melquiond, "When double rounding is odd").
        noinline fn roundedOnce(a: Floats, b: Floats, c: Floats) Floats {
            const product = @as(Doubles, a) * @as(Doubles, b);
            const addend: Doubles = c;
            const sum = product + addend;
            // Knuth's two-sum: sum + rest is exact.
            const part = sum - product;
            const rest = (product - (sum - part)) + (addend - part);
            const zero: Doubles = @splat(0);
            const one: Wide = @splat(1);
            const bits: Wide = @bitCast(sum);
            // Away from zero is one bit up, towards zero one bit down.
            const is_away = (rest > zero) == (sum > zero);
            const moved = @select(u64, is_away, bits +% one, bits -% one);
            const is_odd = (bits & one) == one;
            const is_exact = rest == zero;
            const is_finite = @abs(sum) < @as(Doubles, @splat(std.math.inf(f64)));
            const inexact = @select(u64, is_exact, bits, @select(u64, is_odd, bits, moved));
            return @floatCast(@as(Doubles, @bitCast(@select(u64, is_finite, inexact, bits))));
        }
    };
}
