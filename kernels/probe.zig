//! Limits of the machine, measured by the pool's own threads with the instructions of one CPU
//! variant: reading memory, and dot products of int8, BF16 and F32 from registers.
const std = @import("std");
const clock = @import("clock.zig");
const simd = @import("simd.zig");
const Worker = @import("worker.zig").Worker;

pub const Kind = enum(u32) { read = 0, int8 = 1, bf16 = 2, f32 = 3, _ };

/// In: what to measure; out: the best of some rounds, and their mean.
pub const Probe = extern struct {
    /// What `read` reads.
    address: u64,
    bytes: u64,
    kind: Kind,
    /// Threads that take part; the pool's others wait.
    num_threads: u32,
    /// `read`: 1, or 4 streams a quarter apart; and how far ahead lines are asked for, 0 = not.
    streams: u32,
    prefetch_bytes: u32,
    nanoseconds: u64,
    /// Bytes read, or operations (a multiply-add is two); 0 = the variant has no such instruction.
    work: u64,
    /// Of a round on average; `nanoseconds` is the best one's.
    mean_nanoseconds: u64,
    /// Of the round that runs.
    first_start: u64,
    last_end: u64,
};

/// So many bytes take long enough for one round.
const long_bytes = 256 << 20;

/// Called by all threads of the pool at once.
pub fn run(probe: *Probe, worker: *Worker) callconv(.c) void {
    const num_rounds: usize = if (probe.kind == .read and probe.bytes >= long_bytes) 1 else 3;
    for (0..num_rounds) |round| {
        if (worker.index == 0) {
            probe.first_start = std.math.maxInt(u64);
            probe.last_end = 0;
        }
        worker.sync();
        // Any thread may be the last to see that the others arrived, so all of them look.
        _ = @atomicRmw(u64, &probe.first_start, .Min, clock.now(), .monotonic);
        if (worker.index < probe.num_threads) share(probe, worker);
        _ = @atomicRmw(u64, &probe.last_end, .Max, clock.now(), .monotonic);
        worker.sync();
        if (worker.index != 0) continue;
        const taken = probe.last_end - probe.first_start;
        if (round == 0) {
            probe.nanoseconds = taken;
            probe.mean_nanoseconds = 0;
        }
        probe.nanoseconds = @min(probe.nanoseconds, taken);
        probe.mean_nanoseconds += taken / num_rounds;
        probe.work = workOf(probe);
    }
}

fn workOf(probe: *const Probe) u64 {
    return switch (probe.kind) {
        .read => Reading.of(probe).numBytes(),
        .int8 => probe.num_threads * units_per_thread * Dot(.int8).operations,
        .bf16 => probe.num_threads * units_per_thread * Dot(.bf16).operations,
        .f32 => probe.num_threads * units_per_thread * Dot(.f32).operations,
        _ => 0,
    };
}

/// Units are taken as they come, as the kernels take theirs: a slower core does less.
fn share(probe: *const Probe, worker: *Worker) void {
    const reading: Reading = .of(probe);
    const num_units = switch (probe.kind) {
        .read => reading.passes * reading.num_units,
        else => probe.num_threads * units_per_thread,
    };
    var phase = worker.phase(@intCast(num_units));
    while (phase.next()) |unit| switch (probe.kind) {
        .read => reading.read(probe, unit % reading.num_units),
        .int8 => Dot(.int8).unit(),
        .bf16 => Dot(.bf16).unit(),
        .f32 => Dot(.f32).unit(),
        _ => {},
    };
}

// ------------------------------------------------------------------------- reading

const Lanes = @Vector(simd.native_lanes, u32);
const lane_bytes = @sizeOf(Lanes);
const num_sums = 8;

/// How a buffer is read: in units, several times over if it is small.
const Reading = struct {
    unit_bytes: u64,
    num_units: u64,
    passes: u64,

    /// Less takes no longer than the threads need to meet.
    const least_bytes = 16 << 20;

    fn of(probe: *const Probe) Reading {
        const smallest = 4096;
        const wanted = std.math.clamp(probe.bytes / 32, smallest, 256 * 1024);
        const unit_bytes = wanted / smallest * smallest;
        return .{
            .unit_bytes = unit_bytes,
            .num_units = probe.bytes / unit_bytes,
            .passes = if (probe.bytes == 0) 0 else @max(1, least_bytes / probe.bytes),
        };
    }

    fn numBytes(reading: Reading) u64 {
        return reading.passes * reading.num_units * reading.unit_bytes;
    }

    fn read(reading: Reading, probe: *const Probe, unit: usize) void {
        const base: [*]const u8 = @ptrFromInt(probe.address);
        if (probe.streams == 1) {
            const start = base + unit * reading.unit_bytes;
            return readStreams(1, .{start}, reading.unit_bytes, probe.prefetch_bytes);
        }
        const part = reading.unit_bytes / 4;
        var starts: [4][*]const u8 = undefined;
        for (&starts, 0..) |*start, i| start.* = base + (i * reading.num_units + unit) * part;
        readStreams(4, starts, part, probe.prefetch_bytes);
    }
};

fn readStreams(
    comptime streams: usize,
    starts: [streams][*]const u8,
    bytes: usize,
    prefetch_bytes: usize,
) void {
    const step = num_sums * lane_bytes / streams;
    var sums: [num_sums]Lanes = @splat(@splat(0));
    var at: usize = 0;
    while (at < bytes) : (at += step) {
        inline for (starts, 0..) |start, s| {
            inline for (0..(step + 63) / 64) |line| {
                if (prefetch_bytes != 0) simd.prefetchOnce(start + at + line * 64 + prefetch_bytes);
            }
            inline for (0..num_sums / streams) |i| {
                sums[s * num_sums / streams + i] ^= simd.load(Lanes, start + at + i * lane_bytes);
            }
        }
    }
    for (sums) |sum| std.mem.doNotOptimizeAway(sum);
}

// ------------------------------------------------------------------------- dot products

const units_per_thread = 40;
const repeats = 2000;
/// Independent sums: enough to hide the latency, few enough for the registers.
const chains = if (simd.num_registers == 32) 24 else 10;

const has_brain_dot = simd.is_x86 and
    std.Target.x86.featureSetHas(@import("builtin").cpu.features, .avx512bf16);
const Ints = @Vector(simd.native_lanes, i32);
const Floats = @Vector(simd.native_lanes, f32);
const Bytes = @Vector(simd.native_lanes * 4, u8);

const Type = enum { int8, bf16, f32 };

fn Dot(comptime dot_type: Type) type {
    const exists = dot_type != .bf16 or has_brain_dot;
    const products: u64 = simd.native_lanes * switch (dot_type) {
        .int8 => 4,
        .bf16 => 2,
        .f32 => 1,
    };
    const Sum = if (dot_type == .int8) Ints else Floats;
    const Factor = if (dot_type == .f32) Floats else Bytes;
    return struct {
        /// Of one unit.
        const operations: u64 = if (exists) repeats * chains * products * 2 else 0;

        fn unit() void {
            if (!exists) return;
            var sums: [chains]Sum = @splat(@splat(0));
            var a: Factor = @splat(1);
            const b: Factor = hidden(@as(Factor, @splat(2)));
            for (0..repeats) |_| inline for (&sums) |*sum| {
                a = hidden(a);
                sum.* = switch (dot_type) {
                    .int8 => dotBytes(sum.*, a, b),
                    .bf16 => dotBrain(sum.*, a, b),
                    .f32 => simd.fma(Floats, a, b, sum.*),
                };
            };
            for (sums) |sum| std.mem.doNotOptimizeAway(sum);
        }
    };
}

/// The same value, of which the compiler knows nothing: products are not taken out of the loop.
inline fn hidden(value: anytype) @TypeOf(value) {
    const T = @TypeOf(value);
    if (!simd.is_x86) return asm volatile (""
        : [out] "=w" (-> T),
        : [in] "0" (value),
    );
    if (simd.has_avx512) return asm volatile (""
        : [out] "=v" (-> T),
        : [in] "0" (value),
    );
    return asm volatile (""
        : [out] "=x" (-> T),
        : [in] "0" (value),
    );
}

extern fn @"llvm.x86.avx512.vpdpbusd.512"(Ints, Ints, Ints) Ints;
extern fn @"llvm.x86.avx2.pmadd.ub.sw"(Bytes, Bytes) @Vector(16, i16);
extern fn @"llvm.x86.avx2.pmadd.wd"(@Vector(16, i16), @Vector(16, i16)) Ints;
extern fn @"llvm.x86.ssse3.pmadd.ub.sw.128"(Bytes, Bytes) @Vector(8, i16);
extern fn @"llvm.x86.sse2.pmadd.wd"(@Vector(8, i16), @Vector(8, i16)) Ints;
extern fn @"llvm.aarch64.neon.sdot.v4i32.v16i8"(Ints, Bytes, Bytes) Ints;
extern fn @"llvm.aarch64.neon.saddlp.v4i32.v8i16"(@Vector(8, i16)) Ints;

/// sum + four products each, as the kernels of this variant form them.
inline fn dotBytes(sum: Ints, a: Bytes, b: Bytes) Ints {
    if (simd.has_vnni512) {
        return @"llvm.x86.avx512.vpdpbusd.512"(sum, @bitCast(a), @bitCast(b));
    }
    if (simd.has_avx2) {
        const pairs = @"llvm.x86.avx2.pmadd.ub.sw"(a, b);
        return sum +% @"llvm.x86.avx2.pmadd.wd"(pairs, @splat(1));
    }
    if (simd.is_x86) {
        const pairs = @"llvm.x86.ssse3.pmadd.ub.sw.128"(a, b);
        return sum +% @"llvm.x86.sse2.pmadd.wd"(pairs, @splat(1));
    }
    if (simd.has_sdot) return @"llvm.aarch64.neon.sdot.v4i32.v16i8"(sum, a, b);
    const Half = @Vector(8, i16);
    const pairwise = @"llvm.aarch64.neon.saddlp.v4i32.v8i16";
    const x: @Vector(16, i8) = @bitCast(a);
    const y: @Vector(16, i8) = @bitCast(b);
    const low = @as(Half, simd.part(i8, 8, x, 0)) *% @as(Half, simd.part(i8, 8, y, 0));
    const high = @as(Half, simd.part(i8, 8, x, 8)) *% @as(Half, simd.part(i8, 8, y, 8));
    return sum +% pairwise(low) +% pairwise(high);
}

inline fn dotBrain(sum: Floats, a: Bytes, b: Bytes) Floats {
    return asm ("vdpbf16ps %[b], %[a], %[sum]"
        : [sum] "=v" (-> Floats),
        : [before] "0" (sum),
          [a] "v" (a),
          [b] "v" (b),
    );
}
