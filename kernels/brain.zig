//! BF16 in vectors: widening, rounding, and products of pairs, by the instruction or without it.
const std = @import("std");
const simd = @import("simd.zig");
const Fused = @import("fused.zig").Fused;

pub inline fn widen(comptime n: usize, h: @Vector(n, u16)) @Vector(n, f32) {
    return @bitCast(@as(@Vector(n, u32), h) << @splat(16));
}

/// True where a product of bf16 pairs is one instruction. (Arm's bfdot rounds otherwise.)
pub const has_dot = simd.has_avx512 and simd.hasX86(.avx512bf16);

/// Rounds to bf16: ties to even, subnormals to zero, NaN stays NaN; as `vcvtneps2bf16` does.
pub inline fn round(comptime n: usize, x: @Vector(n, f32)) @Vector(n, u16) {
    const U = @Vector(n, u32);
    const raw: U = @bitCast(x);
    const magnitude = raw & @as(U, @splat(0x7fffffff));
    const odd = (raw >> @splat(16)) & @as(U, @splat(1));
    const rounded = raw +% @as(U, @splat(0x7fff)) +% odd;
    const normal = magnitude >= @as(U, @splat(0x00800000));
    const finite = @select(u32, normal, rounded, raw & @as(U, @splat(0x80000000)));
    const is_nan = magnitude > @as(U, @splat(0x7f800000));
    const bits32 = @select(u32, is_nan, raw | @as(U, @splat(0x00400000)), finite);
    return @truncate(bits32 >> @splat(16));
}

/// 16 pairs of bf16 from 32 values in order: the first of each pair in the high half.
pub inline fn pairs(first: simd.Floats, second: simd.Floats) simd.Ints {
    if (has_dot) {
        const ordered: @Vector(16, u32) = @bitCast(asm ("vcvtne2ps2bf16 %[low], %[high], %[out]"
            : [out] "=v" (-> simd.Ints),
            : [low] "v" (first),
              [high] "v" (second),
        ));
        return @bitCast(std.math.rotl(@Vector(16, u32), ordered, 16));
    }
    const all = round(32, simd.join(f32, 16, first, second));
    const even, const odd = std.simd.deinterlace(2, all);
    const high = @as(@Vector(16, u32), even) << @splat(16);
    return @bitCast(high | @as(@Vector(16, u32), odd));
}

/// sum + high halves' product, then + low halves' product, each fused: what `vdpbf16ps` computes
/// but for its taking subnormal operands and results as zero.
pub inline fn dot(sum: simd.Floats, a: simd.Ints, b: simd.Ints) simd.Floats {
    if (!has_dot) @compileError("write the two multiply-adds of f32");
    return asm ("vdpbf16ps %[b], %[a], %[sum]"
        : [sum] "=v" (-> simd.Floats),
        : [before] "0" (sum),
          [a] "v" (a),
          [b] "v" (b),
    );
}

/// The high and the low halves of n pairs, widened to f32: in the order of `dot`.
pub inline fn split(comptime n: usize, words: @Vector(n, u32)) [2]@Vector(n, u32) {
    return .{ words & @as(@Vector(n, u32), @splat(0xffff0000)), words << @splat(16) };
}

/// a * b + c with one rounding, a and b widened from BF16; T is a vector.
pub inline fn fma(comptime T: type, a: T, b: T, c: T) T {
    if (simd.has_fma) return @mulAdd(T, a, b, c);
    return Fused(@typeInfo(T).vector.len).addExactProduct(a, b, c);
}
