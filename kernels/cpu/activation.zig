//! Activations as signed bytes: the one quantiser of every regime, and the layout of quantised
//! rows that the row kernels (matvec_blocks.zig, matvec_super.zig) read.
const std = @import("std");
const simd = @import("../simd.zig");
const dots = @import("../dots.zig");
const Floats = simd.Floats;
const Ints = simd.Ints;

/// Quantises a row in groups of `group`: d = max|x| / 127, q = round to nearest even of x * (1/d).
/// x `[k]`, q `[k]`, d `[k / group]`; k is a multiple of `group`.
pub fn quantizeRow(comptime group: usize, x: []const f32, q: [*]i8, d: [*]f32) void {
    std.debug.assert(x.len % group == 0);
    for (0..x.len / group) |g| {
        const quantized: Group(group) = .of(x[g * group ..][0..group]);
        d[g] = quantized.d;
        q[g * group ..][0..group].* = @bitCast(quantized.q);
    }
}

fn Group(comptime len: usize) type {
    return struct {
        d: f32,
        q: [len / 16]Lane,

        inline fn of(x: *const [len]f32) @This() {
            // A few maxima at once: one would be a chain as long as the group.
            var largest: [@min(4, len / 16)]Floats = @splat(@splat(0));
            inline for (0..len / 16) |i| {
                const most = &largest[i % largest.len];
                most.* = @max(most.*, @abs(@as(Floats, x[i * 16 ..][0..16].*)));
            }
            inline for (largest[1..]) |other| largest[0] = @max(largest[0], other);
            const amax = @reduce(.Max, largest[0]);
            const d = if (amax < least) 0 else amax / 127.0;
            const inverse: Floats = @splat(if (d == 0) 0 else 1.0 / d);
            var q: [len / 16]Lane = undefined;
            inline for (&q, 0..) |*lane, i| lane.* = toBytes(x[i * 16 ..][0..16].*, inverse);
            return .{ .d = d, .q = q };
        }
    };
}
const Lane = @Vector(16, i8);

/// Groups whose values are all smaller are zeros.
const least = 1e-30;

/// Adding 1.5 * 2^23 rounds to nearest even and leaves the integer in the low bits.
inline fn toBytes(x: Floats, inverse: Floats) Lane {
    const rounded = x * inverse + @as(Floats, @splat(12582912.0));
    return @truncate(@as(Ints, @bitCast(rounded)));
}

/// What `Group` finds, of four groups of 32 at once.
const Scales = struct {
    /// Of group j.
    d: [4]f32,
    /// 1 / d, or 0, of group j in 128-bit lane j.
    inverses: Floats,

    inline fn ofFour(values: *const [4][2]Floats) Scales {
        const zero: Floats = @splat(0);
        var largest: [4]Floats = undefined;
        // Zero first: a group of nothing but NaN counts as zeros, as in `Group`.
        inline for (&largest, values) |*most, pair| {
            most.* = @max(@max(zero, @abs(pair[0])), @abs(pair[1]));
        }
        const amax = simd.maxLanes(largest);
        const d = @select(f32, amax < @as(Floats, @splat(least)), zero, amax / @as(Floats, @splat(127)));
        const inverses = @as(Floats, @splat(1)) / d;
        return .{
            .d = @shuffle(f32, d, undefined, [4]i32{ 0, 4, 8, 12 }),
            .inverses = @select(f32, d == zero, zero, inverses),
        };
    }
    inline fn inverse(scales: Scales, comptime j: i32) Floats {
        return @shuffle(f32, scales.inverses, undefined, @as([16]i32, @splat(4 * j)));
    }
};

/// A quantised row for 32-weight blocks, taken in steps of 4 blocks; the last step is padded with
/// zeros. Per step `q` holds elements 0..15 of the 4 blocks, then elements 16..31 of the 4.
pub const BlockRow = struct {
    /// `[steps][2][4][16]`
    q: [*]align(64) i8,
    /// `[steps][4 blocks][2 halves][2]`: minus the sum of the half's 16 elements, then 0.
    negative_sums: [*]align(64) i32,
    /// `[steps][4]`: minus the sum of each block.
    negative_totals: [*]align(16) i32,
    /// `[steps][4]`; -0 in padding, so that a padded block adds -0 and changes no bit.
    d: [*]align(16) f32,

    pub fn bytes(k: usize) usize {
        return std.mem.alignForward(usize, numSteps(k) * (128 + 64 + 16 + 16), 64);
    }
    pub fn numSteps(k: usize) usize {
        return (k + 127) / 128;
    }
    pub fn at(memory: [*]align(64) u8, k: usize) BlockRow {
        const steps = numSteps(k);
        return .{
            .q = @ptrCast(memory),
            .negative_sums = @ptrCast(@alignCast(memory + steps * 128)),
            .negative_totals = @ptrCast(@alignCast(memory + steps * 192)),
            .d = @ptrCast(@alignCast(memory + steps * 208)),
        };
    }
    pub fn fill(row: BlockRow, x: []const f32) void {
        const num_blocks = x.len / 32;
        for (0..numSteps(x.len)) |step| {
            var values: [4][2]Floats = @splat(@splat(@splat(0)));
            for (0..@min(4, num_blocks - step * 4)) |j| {
                const block = x[(step * 4 + j) * 32 ..][0..32];
                values[j] = .{ block[0..16].*, block[16..].* };
            }
            const scales: Scales = .ofFour(&values);
            var d: [4]f32 = scales.d;
            for (@min(4, num_blocks - step * 4)..4) |j| d[j] = -0.0;
            row.d[step * 4 ..][0..4].* = d;
            const ones: simd.Bytes = @splat(1);
            const zero: Ints = @splat(0);
            var sums: [4]Ints = @splat(zero);
            inline for (0..2) |half| {
                var lanes: [4]Lane = undefined;
                inline for (&lanes, 0..) |*lane, j| {
                    lane.* = toBytes(values[j][half], scales.inverse(j));
                }
                const quants: simd.Bytes = @bitCast(simd.joinFour(i8, 16, lanes));
                simd.store(row.q + step * 128 + half * 64, quants);
                sums[2 * half] = dots.dot4(zero, ones, quants);
            }
            const negative = zero -% simd.sumQuads(sums);
            simd.store(row.negative_sums + step * 16, negative);
            const low = @shuffle(i32, negative, undefined, [4]i32{ 0, 4, 8, 12 });
            const high = @shuffle(i32, negative, undefined, [4]i32{ 2, 6, 10, 14 });
            simd.store(row.negative_totals + step * 4, low +% high);
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
    /// With `simd.has_byte_tables`: per super-block four planes, element b of plane p being element
    /// 4b + p.
    planes: [*]align(64) i8,

    pub fn bytes(k: usize) usize {
        return planesAt(k) + if (simd.has_byte_tables) k else 0;
    }
    fn planesAt(k: usize) usize {
        return std.mem.alignForward(usize, k + k / 4 + k / 64, 64);
    }
    pub fn at(memory: [*]align(64) u8, k: usize) SuperRow {
        return .{
            .q = @ptrCast(memory),
            .sums = @ptrCast(@alignCast(memory + k)),
            .d = @ptrCast(@alignCast(memory + k + k / 4)),
            .planes = @ptrCast(@alignCast(memory + planesAt(k))),
        };
    }
    pub fn fill(row: SuperRow, x: []const f32) void {
        for (0..x.len / 256) |b| {
            const group: Group(256) = .of(x[b * 256 ..][0..256]);
            row.d[b] = group.d;
            const q = group.q;
            var natural: [4]@Vector(64, i8) = undefined;
            inline for (&natural, 0..) |*quarter, t| {
                quarter.* = simd.joinFour(i8, 16, q[4 * t ..][0..4].*);
            }
            if (simd.has_byte_tables) {
                const all = simd.joinFour(i8, 64, natural);
                inline for (std.simd.deinterlace(4, all), 0..) |plane, p| {
                    simd.store(row.planes + b * 256 + p * 64, plane);
                }
            }
            var quads: [4]Ints = undefined;
            inline for (0..4) |t| {
                quads[t] = dots.dot4(@splat(0), @splat(1), @bitCast(natural[t]));
                const first = (t / 2) * 8 + (t % 2) * 2;
                const permuted = .{ q[first], q[first + 1], q[first + 4], q[first + 5] };
                simd.store(row.q + b * 256 + t * 64, simd.joinFour(i8, 16, permuted));
            }
            // Lane l, element i: the sum of the 16 of unit 4i + l.
            const by_lane = simd.sumQuads(quads);
            const of_16: @Vector(16, i16) = @truncate(@shuffle(i32, by_lane, undefined, transposed));
            const even, const odd = std.simd.deinterlace(2, of_16);
            const zeros: @Vector(8, i16) = @splat(0);
            const of_32 = simd.join(i16, 8, zeros, even + odd);
            simd.store(row.sums + b * 32, simd.join(i16, 16, of_16, of_32));
        }
    }

    /// Element 4a + b is element 4b + a.
    const transposed: [16]i32 = .{ 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15 };
};
