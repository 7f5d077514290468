//! The vector words that the kernels are written in: 512-bit vectors on every machine, split by
//! the compiler or by hand where the hardware is narrower. This file knows the instructions; those
//! of integer products are in dots.zig, those of BF16 in brain.zig.
const std = @import("std");
const builtin = @import("builtin");
const Fused = @import("fused.zig").Fused;

pub const Bytes = @Vector(64, u8);
pub const Words = @Vector(32, i16);
pub const Ints = @Vector(16, i32);
pub const Floats = @Vector(16, f32);
pub const Ints4 = @Vector(4, i32);
pub const Floats4 = @Vector(4, f32);

const arch = builtin.cpu.arch;
pub const is_x86 = arch == .x86_64;

pub fn hasX86(comptime feature: std.Target.x86.Feature) bool {
    return is_x86 and std.Target.x86.featureSetHas(builtin.cpu.features, feature);
}
fn hasArm(comptime feature: std.Target.aarch64.Feature) bool {
    return arch == .aarch64 and std.Target.aarch64.featureSetHas(builtin.cpu.features, feature);
}
pub const has_vnni512 = hasX86(.avx512vnni) and hasX86(.avx512bw);
const has_gfni512 = hasX86(.gfni) and hasX86(.avx512bw);
pub const has_avx512 = hasX86(.avx512bw) and hasX86(.avx512vl);
/// `lookUp128` is one instruction.
pub const has_byte_tables = has_avx512 and hasX86(.avx512vbmi);
pub const has_avx2 = hasX86(.avx2);
pub const has_sdot = hasArm(.dotprod);
pub const has_i8mm = hasArm(.i8mm);
pub const has_fma = hasX86(.fma) or arch == .aarch64;
const has_f16c = hasX86(.f16c) or arch == .aarch64;

/// 32-bit lanes of one native register.
pub const native_lanes: usize = if (has_avx512) 16 else if (has_avx2) 8 else 4;
/// Vector registers of the native width.
pub const num_registers: usize = if (has_avx512 or arch == .aarch64) 32 else 16;

// ------------------------------------------------------------------------- memory

/// Unaligned load.
pub inline fn load(comptime T: type, p: anytype) T {
    return @as(*align(1) const T, @ptrCast(p)).*;
}
pub inline fn store(p: anytype, value: anytype) void {
    @as(*align(1) @TypeOf(value), @ptrCast(p)).* = value;
}
/// Two 32-byte halves; one load when they are neighbours, one broadcast when they are the same.
pub inline fn loadHalves(p: [*]const u8, comptime low: usize, comptime high: usize) Bytes {
    if (high == low + 32) return load(Bytes, p + low);
    const Half = @Vector(32, u8);
    return join(u8, 32, load(Half, p + low), load(Half, p + high));
}
/// Four 16-byte lanes, `stride` bytes apart.
pub inline fn loadLanes(p: [*]const u8, comptime stride: usize) Bytes {
    const Lane = @Vector(16, u8);
    var lanes: [4]Lane = undefined;
    inline for (0..4) |j| lanes[j] = load(Lane, p + j * stride);
    return joinFour(u8, 16, lanes);
}
pub inline fn prefetch(p: [*]const u8) void {
    @prefetch(p, .{ .rw = .read, .locality = 3, .cache = .data });
}
/// Into the second cache.
pub inline fn prefetchSecond(p: [*]const u8) void {
    @prefetch(p, .{ .rw = .read, .locality = 2, .cache = .data });
}
/// Of what is read once a step, such as weights: only the first cache is to keep it.
pub inline fn prefetchOnce(p: [*]const u8) void {
    @prefetch(p, .{ .rw = .read, .locality = 0, .cache = .data });
}

// ------------------------------------------------------------------------- floats

/// a * b + c with one rounding; T is f32 or a vector of them.
pub inline fn fma(comptime T: type, a: T, b: T, c: T) T {
    if (has_fma) return @mulAdd(T, a, b, c);
    if (T == f32) return Fused(1).multiplyAdd(.{a}, .{b}, .{c})[0];
    return Fused(@typeInfo(T).vector.len).multiplyAdd(a, b, c);
}
/// `fma` of a vector with the same `b` in all lanes.
pub inline fn fmaBy(comptime T: type, a: T, b: f32, c: T) T {
    if (has_fma) return @mulAdd(T, a, @splat(b), c);
    return Fused(@typeInfo(T).vector.len).multiplyAdd(a, b, c);
}

/// Exact F16 to F32, also without conversion instructions.
pub inline fn widenHalves(comptime n: usize, h: @Vector(n, f16)) @Vector(n, f32) {
    if (has_f16c) return @floatCast(h);
    const U = @Vector(n, u32);
    const raw: U = @as(@Vector(n, u16), @bitCast(h));
    const magnitude = raw & @as(U, @splat(0x7fff));
    // 2^112 moves the exponent's bias from 15 to 127 and makes F16 subnormals normal.
    const shifted: @Vector(n, f32) = @bitCast(magnitude << @splat(13));
    const scaled: U = @bitCast(shifted * @as(@Vector(n, f32), @splat(0x1p112)));
    const special = magnitude >= @as(U, @splat(0x7c00));
    const infinite = scaled | @as(U, @splat(0x7f800000));
    const sign = (raw & @as(U, @splat(0x8000))) << @splat(16);
    return @bitCast(@select(u32, special, infinite, scaled) | sign);
}
pub inline fn widenHalf(h: f16) f32 {
    return widenHalves(1, .{h})[0];
}

/// x[i] + x[i+8], then +4, +2, +1: the fixed order of every sum of 16 strands.
pub inline fn sumHalving(x: Floats) f32 {
    const a = part(f32, 8, x, 0) + part(f32, 8, x, 8);
    const b = part(f32, 4, a, 0) + part(f32, 4, a, 4);
    const c = part(f32, 2, b, 0) + part(f32, 2, b, 2);
    return c[0] + c[1];
}

/// Element i of vector j becomes element j of vector i; n is 4, 8 or 16.
pub inline fn transpose(comptime n: usize, v: [n]@Vector(n, u32)) [n]@Vector(n, u32) {
    // Four vectors at a time in each 128 bits, as instructions do, then 128 bits at a time.
    const num_lanes = n / 4;
    var out: [n]@Vector(n, u32) = undefined;
    var lanes: [4][num_lanes]@Vector(n, u32) = undefined;
    inline for (0..num_lanes) |g| {
        const low = interlace(n, 1, v[4 * g], v[4 * g + 1]);
        const high = interlace(n, 1, v[4 * g + 2], v[4 * g + 3]);
        inline for (0..2) |i| {
            lanes[2 * i][g], lanes[2 * i + 1][g] = interlace(n, 2, low[i], high[i]);
        }
    }
    inline for (0..4) |j| {
        comptime var count = 1;
        inline while (count < num_lanes) : (count *= 2) {
            const before = lanes[j];
            inline for (0..num_lanes / 2) |i| {
                const a, const b = interlaceLanes(n, before[i], before[i + num_lanes / 2]);
                lanes[j][2 * i], lanes[j][2 * i + 1] = .{ a, b };
            }
        }
        inline for (0..num_lanes) |lane| out[4 * lane + j] = lanes[j][lane];
    }
    return out;
}

/// `width` elements of a and of b in turns: from the low half of each 128 bits, and from the high.
inline fn interlace(
    comptime n: usize,
    comptime width: usize,
    a: @Vector(n, u32),
    b: @Vector(n, u32),
) [2]@Vector(n, u32) {
    const low = comptime turns(n, width, 4, 0);
    const high = comptime turns(n, width, 4, 2);
    return .{ @shuffle(u32, a, b, low), @shuffle(u32, a, b, high) };
}

/// 128 bits of a and of b in turns: from the low halves, and from the high ones.
inline fn interlaceLanes(
    comptime n: usize,
    a: @Vector(n, u32),
    b: @Vector(n, u32),
) [2]@Vector(n, u32) {
    const low = comptime turns(n, 4, n, 0);
    const high = comptime turns(n, 4, n, n / 2);
    return .{ @shuffle(u32, a, b, low), @shuffle(u32, a, b, high) };
}

/// For `@shuffle`: in each `segment` of two vectors, what begins at `first`, `width` elements of one
/// and of the other in turns.
pub fn turns(comptime n: usize, width: usize, segment: usize, first: usize) [n]i32 {
    @setEvalBranchQuota(10_000);
    var index: [n]i32 = undefined;
    for (&index, 0..) |*own, i| {
        const at = i % segment;
        const from: i32 = @intCast(i - at + first + at / (2 * width) * width + at % width);
        own.* = if (at / width % 2 == 0) from else ~from;
    }
    return index;
}

/// `sumHalving` of each lane: vector s holds strand s of all lanes' sums.
pub inline fn sumHalvingAcross(comptime n: comptime_int, v: [16]@Vector(n, f32)) @Vector(n, f32) {
    var left = v;
    comptime var half = 8;
    inline while (half > 0) : (half /= 2) {
        inline for (0..half) |i| left[i] += left[i + half];
    }
    return left[0];
}

/// Stops LLVM from cutting a whole-register computation into the four lanes that are used later.
pub inline fn keepWhole(v: Floats) Floats {
    if (!has_avx512) return v;
    return asm (""
        : [out] "=v" (-> Floats),
        : [in] "0" (v),
    );
}

// ------------------------------------------------------------------------- shuffles

/// `count` elements of `v` from `start`.
pub inline fn part(
    comptime T: type,
    comptime count: usize,
    v: anytype,
    comptime start: usize,
) @Vector(count, T) {
    return @shuffle(T, v, undefined, sequence(count, start));
}
fn sequence(comptime count: usize, comptime start: usize) [count]i32 {
    @setEvalBranchQuota(100_000);
    var mask: [count]i32 = undefined;
    for (0..count) |i| mask[i] = @intCast(start + i);
    return mask;
}
/// `a`, then `b`.
pub inline fn join(
    comptime T: type,
    comptime n: usize,
    a: @Vector(n, T),
    b: @Vector(n, T),
) @Vector(2 * n, T) {
    return @shuffle(T, a, b, bothSequences(n));
}
fn bothSequences(comptime n: usize) [2 * n]i32 {
    @setEvalBranchQuota(100_000);
    var mask: [2 * n]i32 = undefined;
    for (0..n) |i| {
        mask[i] = @intCast(i);
        mask[n + i] = ~@as(i32, @intCast(i));
    }
    return mask;
}
/// The four 128-bit lanes of a vector.
pub inline fn joinFour(comptime T: type, comptime n: usize, v: [4]@Vector(n, T)) @Vector(4 * n, T) {
    return join(T, 2 * n, join(T, n, v[0], v[1]), join(T, n, v[2], v[3]));
}
/// The same 4-element shuffle in each of the four 128-bit lanes; 16 and up mean the second vector.
fn inLane(comptime pattern: [4]i32) [16]i32 {
    @setEvalBranchQuota(100_000);
    var mask: [16]i32 = undefined;
    for (0..4) |lane| for (0..4) |i| {
        const offset: i32 = @intCast(lane * 4);
        const from = pattern[i];
        mask[lane * 4 + i] = if (from < 16) from + offset else ~(from - 16 + offset);
    };
    return mask;
}
pub inline fn shuffleLanes(
    comptime T: type,
    a: @Vector(16, T),
    b: @Vector(16, T),
    comptime pattern: [4]i32,
) @Vector(16, T) {
    return @shuffle(T, a, b, inLane(pattern));
}

/// In each 128-bit lane, element i = the sum of that lane's four elements of `v[i]`.
pub inline fn sumQuads(v: [4]Ints) Ints {
    const a = shuffleLanes(i32, v[0], v[1], .{ 0, 16, 1, 17 }) +%
        shuffleLanes(i32, v[0], v[1], .{ 2, 18, 3, 19 });
    const b = shuffleLanes(i32, v[2], v[3], .{ 0, 16, 1, 17 }) +%
        shuffleLanes(i32, v[2], v[3], .{ 2, 18, 3, 19 });
    return shuffleLanes(i32, a, b, .{ 0, 1, 16, 17 }) +% shuffleLanes(i32, a, b, .{ 2, 3, 18, 19 });
}
/// All elements of 128-bit lane i = the largest of `v[i]`.
pub inline fn maxLanes(v: [4]Floats) Floats {
    var quarters: [4]Floats4 = undefined;
    inline for (&quarters, v) |*quarter, whole| {
        const half = @max(part(f32, 8, whole, 0), part(f32, 8, whole, 8));
        quarter.* = @max(part(f32, 4, half, 0), part(f32, 4, half, 4));
    }
    const all = joinFour(f32, 4, quarters);
    const pairs = @max(all, shuffleLanes(f32, all, all, .{ 2, 3, 0, 1 }));
    return @max(pairs, shuffleLanes(f32, pairs, pairs, .{ 1, 0, 3, 2 }));
}
/// Lanes `of` of `a`, then the same lanes of `b`.
pub inline fn joinLanes(a: Ints, b: Ints, comptime of: [2]usize) Ints {
    return @shuffle(i32, a, b, lanePairs(of));
}
fn lanePairs(comptime of: [2]usize) [16]i32 {
    var mask: [16]i32 = undefined;
    for (0..8) |i| {
        const from: i32 = @intCast(of[i / 4] * 4 + i % 4);
        mask[i] = from;
        mask[8 + i] = ~from;
    }
    return mask;
}
/// The sum of the four 128-bit lanes.
pub inline fn sumLanes(v: Ints) Ints4 {
    const a = part(i32, 8, v, 0) +% part(i32, 8, v, 8);
    return part(i32, 4, a, 0) +% part(i32, 4, a, 4);
}

// ------------------------------------------------------------------------- bits of bytes

/// Moves `count` bits of each byte from bit `from` (one per 32-byte half) to bit `to`; the other
/// bits become 0. One instruction with GFNI.
pub inline fn bits(
    x: Bytes,
    comptime from: [2]u3,
    comptime count: u4,
    comptime to: u3,
) Bytes {
    const mask: u8 = comptime @intCast(((1 << count) - 1) << to);
    if (from[0] == to and from[1] == to) return x & @as(Bytes, @splat(mask));
    if (has_gfni512) return affine(x, comptime bitMatrix(from, count, to));
    const low = moveBits(part(u8, 32, x, 0), from[0], to) & @as(@Vector(32, u8), @splat(mask));
    const high = moveBits(part(u8, 32, x, 32), from[1], to) & @as(@Vector(32, u8), @splat(mask));
    return join(u8, 32, low, high);
}
inline fn moveBits(x: @Vector(32, u8), comptime from: u3, comptime to: u3) @Vector(32, u8) {
    return if (from >= to) x >> @splat(from - to) else x << @splat(to - from);
}
/// The same with the first bit for each 8 bytes, `to` 0; they may differ by 4 only.
pub inline fn nibblesOfEights(x: Bytes, comptime from: [8]u3) Bytes {
    if (has_gfni512) return affine(x, comptime matrixOfEights(from, 4, 0));
    comptime var is_high: [64]bool = undefined;
    comptime for (0..64) |i| {
        is_high[i] = from[i / 8] == 4;
    };
    const mask: Bytes = @splat(15);
    const moved = @as(Bytes, @bitCast(@as(@Vector(32, u16), @bitCast(x)) >> @splat(4)));
    return @select(u8, @as(@Vector(64, bool), is_high), moved, x) & mask;
}
fn bitMatrix(comptime from: [2]u3, comptime count: u4, comptime to: u3) Bytes {
    const a = from[0];
    const b = from[1];
    return matrixOfEights(.{ a, a, a, a, b, b, b, b }, count, to);
}
fn matrixOfEights(comptime from: [8]u3, comptime count: u4, comptime to: u3) Bytes {
    @setEvalBranchQuota(100_000);
    var rows: [8]u64 = @splat(0);
    for (0..8) |lane| for (0..count) |b| {
        const shift: u6 = @intCast(8 * (7 - (to + b)));
        rows[lane] |= @as(u64, 1) << @intCast(from[lane] + b) << shift;
    };
    return @bitCast(rows);
}
extern fn @"llvm.x86.vgf2p8affineqb.512"(Bytes, Bytes, u8) Bytes;
inline fn affine(x: Bytes, matrix: Bytes) Bytes {
    return @"llvm.x86.vgf2p8affineqb.512"(x, matrix, 0);
}

/// Field i of `size` bits of each word to its byte i, for i below 4.
pub inline fn spreadFields(words: anytype, comptime size: comptime_int) @TypeOf(words) {
    const V = @TypeOf(words);
    const fields = words & @as(V, @splat((1 << 4 * size) - 1));
    const two_masks = ((1 << 2 * size) - 1) * 0x00010001;
    const pairs = (fields | fields << @splat(16 - 2 * size)) & @as(V, @splat(two_masks));
    const four_masks = ((1 << size) - 1) * 0x01010101;
    return (pairs | pairs << @splat(8 - size)) & @as(V, @splat(four_masks));
}

extern fn @"llvm.x86.avx512.pshuf.b.512"(Bytes, Bytes) Bytes;
extern fn @"llvm.x86.avx2.pshuf.b"(@Vector(32, u8), @Vector(32, u8)) @Vector(32, u8);
extern fn @"llvm.x86.ssse3.pshuf.b.128"(@Vector(16, u8), @Vector(16, u8)) @Vector(16, u8);
extern fn @"llvm.aarch64.neon.tbl1.v16i8"(@Vector(16, u8), @Vector(16, u8)) @Vector(16, u8);

/// `levels[i] + offset` for every byte i below 16 of a whole number of native registers.
pub inline fn lookUp16(
    indices: anytype,
    comptime levels: [16]i8,
    comptime offset: u8,
) @TypeOf(indices) {
    const table = comptime blk: {
        var bytes: [16]u8 = @bitCast(levels);
        for (&bytes) |*byte| byte.* +%= offset;
        break :blk bytes;
    };
    const size = @typeInfo(@TypeOf(indices)).vector.len;
    if (size == 64 and has_avx512) {
        return @"llvm.x86.avx512.pshuf.b.512"(table ++ table ++ table ++ table, indices);
    }
    if (size == 32 and has_avx2) return @"llvm.x86.avx2.pshuf.b"(table ++ table, indices);
    if (size == 16) {
        if (is_x86) return @"llvm.x86.ssse3.pshuf.b.128"(table, indices);
        return @"llvm.aarch64.neon.tbl1.v16i8"(table, indices);
    }
    const half = size / 2;
    const low = lookUp16(part(u8, half, indices, 0), levels, offset);
    return join(u8, half, low, lookUp16(part(u8, half, indices, half), levels, offset));
}

extern fn @"llvm.x86.avx512.permvar.qi.512"(Bytes, Bytes) Bytes;
extern fn @"llvm.x86.avx512.pmultishift.qb.512"(Bytes, Bytes) Bytes;

extern fn @"llvm.x86.avx512.vpermi2var.qi.512"(Bytes, Bytes, Bytes) Bytes;

/// With `has_byte_tables`: `table[index mod 128]` for every byte.
pub inline fn lookUp128(indices: Bytes, comptime table: [128]u8) Bytes {
    return @"llvm.x86.avx512.vpermi2var.qi.512"(table[0..64].*, indices, table[64..128].*);
}

/// The same of `low` and `high`, bytes 0 and 1 of each word being 0.
pub inline fn pickUpperHalves(low: Bytes, high: Bytes, comptime indices: [64]u8) Ints {
    // One instruction, where LLVM would mask what it has picked.
    return asm ("vpermt2b %[high], %[indices], %[words] {%[mask]} {z}"
        : [words] "=v" (-> Ints),
        : [low] "0" (low),
          [high] "v" (high),
          [indices] "v" (@as(Bytes, indices)),
          [mask] "{k1}" (@as(u64, 0xcccc_cccc_cccc_cccc)),
    );
}

/// AVX-512: `table[index mod 64]` for every byte.
pub inline fn permuteBytes(table: Bytes, indices: Bytes) Bytes {
    return @"llvm.x86.avx512.permvar.qi.512"(table, indices);
}

/// What `p` points to is written before, and read again after.
pub inline fn keepInMemory(p: anytype) void {
    asm volatile (""
        :
        : [p] "r" (p),
        : .{ .memory = true });
}

/// Two entries of a constant table, of which LLVM does not see that they need not be loaded apart.
pub inline fn loadPair(table: [*]const [8]u8, low: usize, high: usize) @Vector(2, u64) {
    const first: u64 = @bitCast(table[low]);
    if (!has_avx2) return .{ first, @bitCast(table[high]) };
    // One instruction, where LLVM would load both and then join them.
    return asm ("vmovhps (%[table],%[high],8), %[first], %[pair]"
        : [pair] "=x" (-> @Vector(2, u64)),
        : [first] "x" (@Vector(2, u64){ first, 0 }),
          [table] "r" (table),
          [high] "r" (high),
    );
}

/// AVX-512: byte i = 8 bits from bit `shifts[i]` on of its 64 bits.
pub inline fn shiftToBytes(x: Bytes, comptime shifts: [64]u8) Bytes {
    return @"llvm.x86.avx512.pmultishift.qb.512"(shifts, x);
}

/// AVX-512: bits of `ones` where `mask` is set, of `zeros` elsewhere.
pub inline fn selectBits(mask: Bytes, ones: Bytes, zeros: Bytes) Bytes {
    // One instruction and a copy that costs nothing, where LLVM takes two.
    return asm ("vpternlogd $0xca, %[zeros], %[ones], %[bits]"
        : [bits] "=v" (-> Bytes),
        : [mask] "0" (mask),
          [ones] "v" (ones),
          [zeros] "v" (zeros),
    );
}

/// AVX-512: 7 bits of each byte from bit `first` on, and bit 7 such that the number of ones is even.
pub inline fn evenParity(comptime first: u1, x: Bytes) Bytes {
    // A matrix row per result bit, bit 7 first: it is the sum of all of them.
    const matrix: @Vector(8, u64) = @splat(0x010204081020407f << first);
    return affine(x, @bitCast(matrix));
}

/// Bit i mod 8 of byte i.
pub const bit_of_element: Bytes = blk: {
    @setEvalBranchQuota(100_000);
    var masks: [64]u8 = undefined;
    for (0..64) |i| masks[i] = @as(u8, 1) << @intCast(i % 8);
    break :blk masks;
};
