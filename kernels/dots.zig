//! Products of bytes and of 16-bit integers, exact: the instructions of each CPU, four products to a
//! sum of 32 bits, and scales of whole 128-bit lanes.
const simd = @import("simd.zig");
const Bytes = simd.Bytes;
const Words = simd.Words;
const Ints = simd.Ints;
const Ints4 = simd.Ints4;
const is_x86 = simd.is_x86;
const has_vnni512 = simd.has_vnni512;
const has_avx512 = simd.has_avx512;
const has_avx2 = simd.has_avx2;
const has_sdot = simd.has_sdot;
const part = simd.part;
const join = simd.join;
const joinFour = simd.joinFour;

extern fn @"llvm.x86.avx512.vpdpbusd.512"(Ints, Ints, Ints) Ints;
extern fn @"llvm.x86.avx512.vpdpwssd.512"(Ints, Ints, Ints) Ints;
extern fn @"llvm.x86.avx512.pmaddubs.w.512"(Bytes, Bytes) Words;
extern fn @"llvm.x86.avx2.pmadd.ub.sw"(@Vector(32, u8), @Vector(32, u8)) @Vector(16, i16);
extern fn @"llvm.x86.avx2.pmadd.wd"(@Vector(16, i16), @Vector(16, i16)) @Vector(8, i32);
extern fn @"llvm.x86.ssse3.pmadd.ub.sw.128"(@Vector(16, u8), @Vector(16, u8)) @Vector(8, i16);
extern fn @"llvm.x86.sse2.pmadd.wd"(@Vector(8, i16), @Vector(8, i16)) Ints4;
extern fn @"llvm.aarch64.neon.sdot.v4i32.v16i8"(Ints4, @Vector(16, i8), @Vector(16, i8)) Ints4;
extern fn @"llvm.aarch64.neon.saddlp.v4i32.v8i16"(@Vector(8, i16)) Ints4;
extern fn @"llvm.aarch64.neon.addp.v4i32"(Ints4, Ints4) Ints4;

/// True where `dot4` takes unsigned bytes up to 255; otherwise they end at 127.
pub const wide_unsigned = has_vnni512;

/// acc[i] + the sum of four products u * s; u unsigned (see `wide_unsigned`), s in -127..127.
pub inline fn dot4(acc: Ints, u: Bytes, s: Bytes) Ints {
    if (has_vnni512) return @"llvm.x86.avx512.vpdpbusd.512"(acc, @bitCast(u), @bitCast(s));
    if (is_x86) return acc +% multiplyPairs(dotPairs(u, s), @splat(1));
    return armDot(acc, u, s);
}

/// acc[i] + the sum of four products w * s of signed bytes; s in -127..127.
pub inline fn dot4Signed(acc: Ints, w: Bytes, s: Bytes) Ints {
    if (!is_x86) return armDot(acc, w, s);
    return acc +% multiplyPairs(dotPairsSigned(w, s), @splat(1));
}

extern fn @"llvm.x86.avx2.psign.b"(@Vector(32, u8), @Vector(32, u8)) @Vector(32, u8);
extern fn @"llvm.x86.ssse3.psign.b.128"(@Vector(16, u8), @Vector(16, u8)) @Vector(16, u8);

/// x86: sums of two neighbouring products of signed bytes; s in -127..127.
inline fn dotPairsSigned(w: Bytes, s: Bytes) Words {
    // |w| * (s with w's sign): 128 * 127 * 2 still fits 16 bits.
    const magnitude: Bytes = @bitCast(@abs(@as(@Vector(64, i8), @bitCast(w))));
    if (has_avx512) {
        const negative = @as(@Vector(64, i8), @bitCast(w)) < @as(@Vector(64, i8), @splat(0));
        return dotPairs(magnitude, @select(u8, negative, @as(Bytes, @splat(0)) -% s, s));
    }
    if (has_avx2) {
        const f = @"llvm.x86.avx2.psign.b";
        const low = f(part(u8, 32, s, 0), part(u8, 32, w, 0));
        return dotPairs(magnitude, join(u8, 32, low, f(part(u8, 32, s, 32), part(u8, 32, w, 32))));
    }
    const f = @"llvm.x86.ssse3.psign.b.128";
    var lanes: [4]@Vector(16, u8) = undefined;
    inline for (0..4) |j| lanes[j] = f(part(u8, 16, s, j * 16), part(u8, 16, w, j * 16));
    return dotPairs(magnitude, joinFour(u8, 16, lanes));
}

inline fn armDot(acc: Ints, u: Bytes, s: Bytes) Ints {
    var lanes: [4]Ints4 = undefined;
    inline for (&lanes, 0..) |*lane, j| {
        const c = part(i32, 4, acc, j * 4);
        lane.* = armDotLane(c, part(u8, 16, u, j * 16), part(u8, 16, s, j * 16));
    }
    return joinFour(i32, 4, lanes);
}

inline fn armDotLane(acc: Ints4, u: @Vector(16, u8), s: @Vector(16, u8)) Ints4 {
    const a: @Vector(16, i8) = @bitCast(u);
    const b: @Vector(16, i8) = @bitCast(s);
    if (has_sdot) return @"llvm.aarch64.neon.sdot.v4i32.v16i8"(acc, a, b);
    const Half16 = @Vector(8, i16);
    const low = @as(Half16, part(i8, 8, a, 0)) *% @as(Half16, part(i8, 8, b, 0));
    const high = @as(Half16, part(i8, 8, a, 8)) *% @as(Half16, part(i8, 8, b, 8));
    const pairwise = @"llvm.aarch64.neon.saddlp.v4i32.v8i16";
    return acc +% @"llvm.aarch64.neon.addp.v4i32"(pairwise(low), pairwise(high));
}

/// x86: sums of two neighbouring products, u up to 127 (or 2 * u * s within 16 bits).
inline fn dotPairs(u: Bytes, s: Bytes) Words {
    if (has_avx512) return @"llvm.x86.avx512.pmaddubs.w.512"(u, s);
    if (has_avx2) {
        const f = @"llvm.x86.avx2.pmadd.ub.sw";
        const low = f(part(u8, 32, u, 0), part(u8, 32, s, 0));
        return join(i16, 16, low, f(part(u8, 32, u, 32), part(u8, 32, s, 32)));
    }
    const f = @"llvm.x86.ssse3.pmadd.ub.sw.128";
    var lanes: [4]@Vector(8, i16) = undefined;
    inline for (0..4) |j| lanes[j] = f(part(u8, 16, u, j * 16), part(u8, 16, s, j * 16));
    return joinFour(i16, 8, lanes);
}

/// Sums of two neighbouring products of 16-bit integers.
pub inline fn multiplyPairs(a: Words, b: Words) Ints {
    if (has_vnni512) {
        return @"llvm.x86.avx512.vpdpwssd.512"(@splat(0), @bitCast(a), @bitCast(b));
    }
    if (has_avx2) {
        const f = @"llvm.x86.avx2.pmadd.wd";
        const low = f(part(i16, 16, a, 0), part(i16, 16, b, 0));
        return join(i32, 8, low, f(part(i16, 16, a, 16), part(i16, 16, b, 16)));
    }
    if (is_x86) {
        const f = @"llvm.x86.sse2.pmadd.wd";
        var lanes: [4]Ints4 = undefined;
        inline for (0..4) |j| lanes[j] = f(part(i16, 8, a, j * 8), part(i16, 8, b, j * 8));
        return joinFour(i32, 4, lanes);
    }
    const product = @as(@Vector(32, i32), a) *% @as(@Vector(32, i32), b);
    var lanes: [4]Ints4 = undefined;
    inline for (0..4) |j| lanes[j] = @"llvm.aarch64.neon.addp.v4i32"(
        part(i32, 4, product, j * 8),
        part(i32, 4, product, j * 8 + 4),
    );
    return joinFour(i32, 4, lanes);
}

/// Integer scales of one vector of quants, the same in all elements of each 128-bit lane.
pub const LaneScales = if (is_x86) Words else Ints;

/// Scales of the four lanes, picked from `scales` by `indices`.
pub inline fn laneScales(scales: Words, comptime indices: [4]usize) LaneScales {
    return @shuffle(i16, scales, undefined, repeatEach(if (is_x86) 8 else 4, indices));
}
fn repeatEach(comptime times: usize, comptime indices: [4]usize) [4 * times]i32 {
    @setEvalBranchQuota(100_000);
    var mask: [4 * times]i32 = undefined;
    for (0..4 * times) |i| mask[i] = @intCast(indices[i / times]);
    return mask;
}

/// acc + scale * (products of u and s), exact; u at most 127.
pub inline fn dotScaled(acc: Ints, u: Bytes, s: Bytes, scales: LaneScales) Ints {
    if (!is_x86) return acc +% dot4(@splat(0), u, s) *% scales;
    const pairs = dotPairs(u, s);
    if (has_vnni512) {
        return @"llvm.x86.avx512.vpdpwssd.512"(acc, @bitCast(pairs), @bitCast(scales));
    }
    return acc +% multiplyPairs(pairs, scales);
}

/// 32 bytes, and the sums of their products.
pub const Half = @Vector(32, u8);
pub const HalfSums = @Vector(8, i32);
/// An integer scale as `halfScale` reads it: on x86 twice, for two neighbouring products.
pub const HalfScale = if (is_x86) [2]i16 else i32;
const HalfScales = if (is_x86) @Vector(16, i16) else HalfSums;

pub inline fn halfScales(units: @Vector(16, u8)) [16]HalfScale {
    const each: Ints = units;
    return @bitCast(if (is_x86) each | each << @splat(16) else each);
}

/// `low` for the first 16 bytes, `high` for the others.
pub inline fn halfScale(low: HalfScale, high: HalfScale) HalfScales {
    const first: Ints4 = @splat(@bitCast(low));
    const second: Ints4 = @splat(@bitCast(high));
    return @bitCast(join(i32, 4, first, second));
}

/// acc + scale * (products of u and s), exact; u at most 127.
pub inline fn dotScaledHalf(acc: HalfSums, u: Half, s: Half, scales: HalfScales) HalfSums {
    if (has_avx2) {
        const pairs = @"llvm.x86.avx2.pmadd.ub.sw"(u, s);
        return acc +% @"llvm.x86.avx2.pmadd.wd"(pairs, scales);
    }
    var lanes: [2]Ints4 = undefined;
    inline for (&lanes, 0..) |*lane, j| {
        const a = part(u8, 16, u, j * 16);
        const b = part(u8, 16, s, j * 16);
        if (is_x86) {
            const pairs = @"llvm.x86.ssse3.pmadd.ub.sw.128"(a, b);
            lane.* = @"llvm.x86.sse2.pmadd.wd"(pairs, part(i16, 8, scales, j * 8));
        } else {
            lane.* = armDotLane(@splat(0), a, b) *% part(i32, 4, scales, j * 4);
        }
    }
    return acc +% join(i32, 4, lanes[0], lanes[1]);
}

extern fn @"llvm.x86.avx512.packssdw.512"(Ints, Ints) Words;

/// With `has_vnni512`: acc + the products of u[v] and s[v] times their scales, exact where the sums
/// of four products fit 16 bits. In each 128-bit lane the first four scales are those of u[0].
pub inline fn dotQuadsScaled(acc: Ints, u: [2]Bytes, s: [2]Bytes, scales: Words) Ints {
    const zero: Ints = @splat(0);
    const quads = @"llvm.x86.avx512.packssdw.512"(dot4(zero, u[0], s[0]), dot4(zero, u[1], s[1]));
    return @"llvm.x86.avx512.vpdpwssd.512"(acc, @bitCast(quads), @bitCast(scales));
}
/// The scales of two vectors' lanes, picked from `scales`, as `dotQuadsScaled` wants them.
pub inline fn quadScales(scales: Words, comptime indices: [2][4]usize) Words {
    return @shuffle(i16, scales, undefined, quadIndices(indices));
}
fn quadIndices(comptime indices: [2][4]usize) [32]i32 {
    var mask: [32]i32 = undefined;
    for (0..32) |i| mask[i] = @intCast(indices[i / 4 % 2][i / 8]);
    return mask;
}

/// acc + scale * (products of signed bytes w and s), exact; s in -127..127.
pub inline fn dotScaledSigned(acc: Ints, w: Bytes, s: Bytes, scales: LaneScales) Ints {
    if (!is_x86) return acc +% armDot(@splat(0), w, s) *% scales;
    return acc +% multiplyPairs(dotPairsSigned(w, s), scales);
}
