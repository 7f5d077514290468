//! Activations as signed bytes: the one quantiser of every regime, and the layout of quantised
//! rows that the row kernels (matvec_blocks.zig, matvec_super.zig) read.
const std = @import("std");
const simd = @import("../simd.zig");
const Floats = simd.Floats;
const Ints = simd.Ints;

/// Quantises a row in groups of `group`: d = max|x| / 127, q = round to nearest even of x * (1/d).
/// x `[k]`, q `[k]`, d `[k / group]`; k is a multiple of `group`.
pub fn quantizeRow(comptime group: usize, x: []const f32, q: [*]i8, d: [*]f32) void {
    std.debug.assert(x.len % group == 0);
    for (0..x.len / group) |g| {
        d[g] = quantizeGroup(group, x[g * group ..][0..group], q[g * group ..][0..group]);
    }
}

inline fn quantizeGroup(comptime group: usize, x: *const [group]f32, q: *[group]i8) f32 {
    var largest: Floats = @splat(0);
    inline for (0..group / 16) |i| {
        largest = @max(largest, @abs(@as(Floats, x[i * 16 ..][0..16].*)));
    }
    const amax = @reduce(.Max, largest);
    const d = if (amax < 1e-30) 0 else amax / 127.0;
    const inverse: Floats = @splat(if (d == 0) 0 else 1.0 / d);
    // Adding 1.5 * 2^23 rounds to nearest even and leaves the integer in the low bits.
    const magic: Floats = @splat(12582912.0);
    inline for (0..group / 16) |i| {
        const rounded = @as(Floats, x[i * 16 ..][0..16].*) * inverse + magic;
        q[i * 16 ..][0..16].* = @as(@Vector(16, i8), @truncate(@as(Ints, @bitCast(rounded))));
    }
    return d;
}

/// A quantised row for 32-weight blocks, taken in steps of 4 blocks; the last step is padded with
/// zeros. Per step `q` holds elements 0..15 of the 4 blocks, then elements 16..31 of the 4.
pub const BlockRow = struct {
    /// `[steps][2][4][16]`
    q: [*]align(64) i8,
    /// `[steps][4 blocks][4]`: minus the sum of elements 4p..4p+3 and 16+4p..16+4p+3.
    negative_sums: [*]align(64) i32,
    /// `[steps][4]`; -0 in padding, so that a padded block adds -0 and changes no bit.
    d: [*]align(16) f32,

    pub fn bytes(k: usize) usize {
        return std.mem.alignForward(usize, numSteps(k) * (128 + 64 + 16), 64);
    }
    pub fn numSteps(k: usize) usize {
        return (k + 127) / 128;
    }
    pub fn at(memory: [*]align(64) u8, k: usize) BlockRow {
        const steps = numSteps(k);
        return .{
            .q = @ptrCast(memory),
            .negative_sums = @ptrCast(@alignCast(memory + steps * 128)),
            .d = @ptrCast(@alignCast(memory + steps * 192)),
        };
    }
    pub fn fill(row: BlockRow, x: []const f32) void {
        for (0..numSteps(x.len)) |step| {
            var q: [128]i8 align(64) = @splat(0);
            for (0..4) |j| {
                const start = (step * 4 + j) * 32;
                const d = &row.d[step * 4 + j];
                if (start < x.len) {
                    d.* = quantizeGroup(32, x[start..][0..32], q[j * 32 ..][0..32]);
                } else d.* = -0.0;
            }
            const natural: [*]const u8 = @ptrCast(&q);
            const ones: simd.Bytes = @splat(1);
            var sums: Ints = @splat(0);
            inline for (0..2) |half| {
                const lanes = simd.loadLanes(natural + half * 16, 32);
                simd.store(row.q + step * 128 + half * 64, lanes);
                sums = simd.dot4(sums, ones, lanes);
            }
            simd.store(row.negative_sums + step * 16, @as(Ints, @splat(0)) -% sums);
        }
    }
};

/// A quantised row for super-blocks of 256. In each 128 the sub-blocks of 32 lie in the order
/// 0, 2, 1, 3: the order in which two shifts of the packed weights give them.
pub const SuperRow = struct {
    /// `[k]`, permuted
    q: [*]align(64) i8,
    /// Per super-block 16 sums of 16, then 8 zeros and 8 sums of 32, in natural order.
    sums: [*]align(64) i16,
    /// `[k / 256]`
    d: [*]f32,

    pub fn bytes(k: usize) usize {
        return std.mem.alignForward(usize, k + k / 4 + k / 64, 64);
    }
    pub fn at(memory: [*]align(64) u8, k: usize) SuperRow {
        return .{
            .q = @ptrCast(memory),
            .sums = @ptrCast(@alignCast(memory + k)),
            .d = @ptrCast(@alignCast(memory + k + k / 4)),
        };
    }
    pub fn fill(row: SuperRow, x: []const f32) void {
        for (0..x.len / 256) |b| {
            var q: [256]i8 align(64) = undefined;
            row.d[b] = quantizeGroup(256, x[b * 256 ..][0..256], &q);
            const natural: [*]const u8 = @ptrCast(&q);
            var quads: [4]Ints = undefined;
            inline for (0..4) |t| {
                quads[t] = simd.dot4(@splat(0), @splat(1), simd.load(simd.Bytes, natural + t * 64));
                const first = (t / 2) * 128 + (t % 2) * 32;
                simd.store(row.q + b * 256 + t * 64, simd.loadHalves(natural, first, first + 64));
            }
            // Lane l, element i: the sum of the 16 of unit 4i + l.
            const by_lane: [16]i32 = simd.sumQuads(quads);
            const sums = row.sums[b * 32 ..][0..32];
            for (0..16) |u| sums[u] = @intCast(by_lane[(u % 4) * 4 + u / 4]);
            for (0..8) |s| {
                sums[16 + s] = 0;
                sums[24 + s] = sums[2 * s] + sums[2 * s + 1];
            }
        }
    }
};
