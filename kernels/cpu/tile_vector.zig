//! Vectors of the GEMM tile, one native register each, and their integer multiply-adds. What
//! stands on this file is written once over `lanes` 32-bit columns.
const std = @import("std");
const simd = @import("../simd.zig");

/// How the four products of one weight and one activation dword reach an i32 column.
pub const Products = enum {
    /// One instruction, unsigned weights (x86 with VNNI).
    unsigned_dot,
    /// One instruction, signed weights (Arm with dot product).
    signed_dot,
    /// Sums of two products as i16 first, unsigned weights (x86 without VNNI).
    unsigned_pairs,
    /// Sums of two products as i16 first, signed weights (Arm without dot product).
    signed_pairs,
};

pub const products: Products = if (simd.has_vnni512)
    .unsigned_dot
else if (simd.has_sdot) .signed_dot else if (simd.is_x86) .unsigned_pairs else .signed_pairs;
pub const in_pairs = products == .unsigned_pairs or products == .signed_pairs;
pub const signed = products == .signed_dot or products == .signed_pairs;

/// 32-bit elements of one vector.
pub const lanes = switch (products) {
    .unsigned_dot => 16,
    .unsigned_pairs => if (simd.has_avx2) 8 else 4,
    .signed_dot, .signed_pairs => 4,
};
/// Rows of outputs in one vector of sums. Arm's i8mm multiplies eight weights of two columns by eight
/// activations of two rows in one instruction: element 2c + r is column c, row r.
pub const sum_rows = if (simd.has_i8mm) 2 else 1;
/// Columns of outputs in one vector of sums.
pub const sum_columns = lanes / sum_rows;
/// Dwords of weights per column that one instruction multiplies in tiles.
pub const dot_dwords = sum_rows;

/// Vector registers that a kernel may count on.
pub const registers = if (products == .unsigned_pairs) 16 else 32;

pub const Bytes = @Vector(4 * lanes, u8);
pub const Shorts = @Vector(2 * lanes, i16);
pub const Ints = @Vector(lanes, i32);
pub const Words = @Vector(lanes, u32);
pub const Floats = @Vector(lanes, f32);

pub const load = simd.load;
pub const store = simd.store;

pub inline fn splat(comptime T: type, value: std.meta.Child(T)) T {
    return @splat(value);
}

/// One dword in every column.
pub inline fn broadcast(comptime T: type, dword: i32) T {
    return @bitCast(splat(Ints, dword));
}

pub inline fn multiplyAdd(a: Floats, b: Floats, c: Floats) Floats {
    return simd.fma(Floats, a, b, c);
}
pub inline fn multiplyAddBy(a: Floats, b: f32, c: Floats) Floats {
    return simd.fmaBy(Floats, a, b, c);
}

/// F16 bits in the low half of each word, as F32.
pub inline fn widen(words: Words) Floats {
    const halves: @Vector(lanes, u16) = @truncate(words);
    return simd.widenHalves(lanes, @bitCast(halves));
}

/// The same value, opaque to the compiler: it would turn a chain of sums into a tree that does
/// not fit in the registers.
pub inline fn inOrder(value: anytype) @TypeOf(value) {
    var same = value;
    if (simd.is_x86) {
        asm volatile (""
            : [same] "+x" (same),
        );
    } else asm volatile (""
        : [same] "+w" (same),
    );
    return same;
}

/// Keeps the compiler from mixing what comes before with what comes after.
pub inline fn apart() void {
    asm volatile ("" ::: .{ .memory = true });
}

/// sum + the four products of each dword; only where `products` is one of the dots.
pub inline fn dot(sum: Ints, w: Bytes, a: Bytes) Ints {
    return instructions.dot(sum, w, a);
}

/// Sums of `sum_rows` x `sum_columns` outputs + the products of `dot_dwords` dwords per column and row.
pub inline fn dotTile(sum: Ints, w: Bytes, a: Bytes) Ints {
    return if (simd.has_i8mm) arm.dotSquare(sum, w, a) else dot(sum, w, a);
}

/// The two sums of two products of each dword, exact for weights up to 128 by magnitude.
pub inline fn pairs(w: Bytes, a: Bytes) Shorts {
    return instructions.pairs(w, a);
}

/// Four signed bytes per column as words: those at 0 and 2, and those at 1 and 3.
pub inline fn splitWords(bytes: Words) [2]Shorts {
    const neighbours: Shorts = @bitCast(bytes);
    return .{ neighbours << @splat(8) >> @splat(8), neighbours >> @splat(8) };
}

/// `pairs` of signed weights where the instruction wants unsigned ones: |w| * (a with w's sign).
pub inline fn signedPairs(w: Bytes, a: Bytes) Shorts {
    const magnitude = @abs(@as(@Vector(4 * lanes, i8), @bitCast(w)));
    return instructions.pairs(magnitude, instructions.sign(a, w));
}

/// x[2i] * y[2i] + x[2i + 1] * y[2i + 1]
pub inline fn pairDot(x: Shorts, y: Shorts) Ints {
    return instructions.pairDot(x, y);
}

/// sum + pairDot(x, y)
pub inline fn addPairDot(sum: Ints, x: Shorts, y: Shorts) Ints {
    if (products == .unsigned_dot) return instructions.addPairDot(sum, x, y);
    return sum +% pairDot(x, y);
}

const instructions = switch (lanes) {
    16 => x86_512,
    8 => x86_256,
    else => if (simd.is_x86) x86_128 else arm,
};
const x86_512 = struct {
    extern fn @"llvm.x86.avx512.vpdpbusd.512"(Ints, Ints, Ints) Ints;
    extern fn @"llvm.x86.avx512.vpdpwssd.512"(Ints, Ints, Ints) Ints;
    extern fn @"llvm.x86.avx512.pmaddw.d.512"(Shorts, Shorts) Ints;
    const pairDot = @"llvm.x86.avx512.pmaddw.d.512";

    inline fn dot(sum: Ints, w: Bytes, a: Bytes) Ints {
        return @"llvm.x86.avx512.vpdpbusd.512"(sum, @bitCast(w), @bitCast(a));
    }
    inline fn addPairDot(sum: Ints, x: Shorts, y: Shorts) Ints {
        return @"llvm.x86.avx512.vpdpwssd.512"(sum, @bitCast(x), @bitCast(y));
    }
};
const x86_256 = struct {
    extern fn @"llvm.x86.avx2.pmadd.ub.sw"(Bytes, Bytes) Shorts;
    extern fn @"llvm.x86.avx2.pmadd.wd"(Shorts, Shorts) Ints;
    extern fn @"llvm.x86.avx2.psign.b"(Bytes, Bytes) Bytes;
    const pairs = @"llvm.x86.avx2.pmadd.ub.sw";
    const pairDot = @"llvm.x86.avx2.pmadd.wd";
    const sign = @"llvm.x86.avx2.psign.b";
};
const x86_128 = struct {
    extern fn @"llvm.x86.ssse3.pmadd.ub.sw.128"(Bytes, Bytes) Shorts;
    extern fn @"llvm.x86.sse2.pmadd.wd"(Shorts, Shorts) Ints;
    extern fn @"llvm.x86.ssse3.psign.b.128"(Bytes, Bytes) Bytes;
    const pairs = @"llvm.x86.ssse3.pmadd.ub.sw.128";
    const pairDot = @"llvm.x86.sse2.pmadd.wd";
    const sign = @"llvm.x86.ssse3.psign.b.128";
};
const arm = struct {
    const Bytes16 = @Vector(16, i8);
    const Bytes8 = @Vector(8, i8);
    const Shorts4 = @Vector(4, i16);
    extern fn @"llvm.aarch64.neon.sdot.v4i32.v16i8"(Ints, Bytes16, Bytes16) Ints;
    extern fn @"llvm.aarch64.neon.smmla.v4i32.v16i8"(Ints, Bytes16, Bytes16) Ints;
    extern fn @"llvm.aarch64.neon.smull.v8i16"(Bytes8, Bytes8) Shorts;
    extern fn @"llvm.aarch64.neon.addp.v8i16"(Shorts, Shorts) Shorts;
    extern fn @"llvm.aarch64.neon.smull.v4i32"(Shorts4, Shorts4) Ints;
    extern fn @"llvm.aarch64.neon.addp.v4i32"(Ints, Ints) Ints;

    inline fn dot(sum: Ints, w: Bytes, a: Bytes) Ints {
        return @"llvm.aarch64.neon.sdot.v4i32.v16i8"(sum, @bitCast(w), @bitCast(a));
    }
    inline fn dotSquare(sum: Ints, w: Bytes, a: Bytes) Ints {
        return @"llvm.aarch64.neon.smmla.v4i32.v16i8"(sum, @bitCast(w), @bitCast(a));
    }
    inline fn pairs(w: Bytes, a: Bytes) Shorts {
        const low = multiply(Bytes8, Shorts, half(Bytes8, w, 0), half(Bytes8, a, 0));
        const high = multiply(Bytes8, Shorts, half(Bytes8, w, 8), half(Bytes8, a, 8));
        return @"llvm.aarch64.neon.addp.v8i16"(low, high);
    }
    inline fn pairDot(x: Shorts, y: Shorts) Ints {
        const low = multiply(Shorts4, Ints, half(Shorts4, x, 0), half(Shorts4, y, 0));
        const high = multiply(Shorts4, Ints, half(Shorts4, x, 4), half(Shorts4, y, 4));
        return @"llvm.aarch64.neon.addp.v4i32"(low, high);
    }
    inline fn half(comptime Half: type, v: anytype, comptime start: usize) Half {
        const count = @typeInfo(Half).vector.len;
        const T = @typeInfo(@TypeOf(v)).vector.child;
        return @bitCast(simd.part(T, count, v, start));
    }
    inline fn multiply(comptime Narrow: type, comptime Wide: type, x: Narrow, y: Narrow) Wide {
        if (Narrow == Bytes8) return @"llvm.aarch64.neon.smull.v8i16"(x, y);
        return @"llvm.aarch64.neon.smull.v4i32"(x, y);
    }
};
