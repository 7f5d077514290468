//! How keys and values lie in the KV cache: one block holds 32 positions of one kv head, its K
//! part before its V part. Stores single positions; kv_tiles.zig unpacks whole blocks.
//!
//! "Lanes are what is not summed": K is transposed, so that scores come out 32 positions to a
//! row; V is not, so that the output comes out in dims. bf16 pairs up what is summed, the first of
//! two dims or positions in the high half of a word: so the instruction that multiplies pairs,
//! which adds the high product first, sums in order. With D = head_dim, W = value_dim rounded up
//! to 16 and G(n) = ceil(n / 32), the parts hold
//!
//!     type       K part                            V part
//!     f32 f16    [D][32]                           [32][W]
//!     bf16       [D/2][32] pairs                   [16][W] pairs
//!     q8_0       i8 [D][32], f16 [G(D)][32]        i8 [32][W], f16 [G(W)][32]
//!     q4_0       u8 [D/2][32], f16 [G(D)][32]      u8 [32][G(W)][16], f16 [G(W)][32]
//!
//! where a byte of q4_0 holds two dims as q + 8, the first in the low nibble: 2i and 2i + 1 in a
//! K part, i and i + 16 of its group in a V part. In bytes, n being D for the K part and W for the
//! V part, each part rounded up to 64:
//!
//!     f32 128 n    f16, bf16 64 n    q8_0 32 n + 64 G(n)    q4_0 576 G(n)
//!
//! src/plan/ computes the same sizes.
const std = @import("std");
const plan = @import("../plan.zig");
const simd = @import("../simd.zig");
const brain = @import("../brain.zig");
const Step = @import("../worker.zig").Step;

pub const block_size = plan.block_size;
/// Dims that share a scale in q8_0 and q4_0.
pub const quant_group = 32;
/// V rows are padded to whole vectors of this many dims; the padding is never part of a result.
const value_alignment = 16;

/// Bytes of the K part (n = head_dim) or V part (n = value width) of one block.
fn partBytes(kv_type: plan.KvType, n: usize) usize {
    const groups = std.math.divCeil(usize, n, quant_group) catch unreachable;
    const bytes = switch (kv_type) {
        .f32 => block_size * 4 * n,
        .f16, .bf16 => block_size * 2 * n,
        .q8_0 => block_size * n + block_size * 2 * groups,
        .q4_0 => (block_size / 2 * quant_group + block_size * 2) * groups,
    };
    return std.mem.alignForward(usize, bytes, 64);
}

pub const Layout = struct {
    head_dim: usize,
    value_dim: usize,
    /// value_dim rounded up to whole vectors: the length of a V row and of an accumulator.
    width: usize,
    type_k: plan.KvType,
    type_v: plan.KvType,
    key_bytes: usize,
    block_bytes: usize,
    /// Bytes of one kv head's plane: all blocks of the pool.
    plane_bytes: usize,

    pub fn of(cache: *const plan.Cache, num_blocks: u32) Layout {
        const width = std.mem.alignForward(usize, cache.value_dim, value_alignment);
        const key_bytes = partBytes(cache.type_k, cache.head_dim);
        const block_bytes = key_bytes + partBytes(cache.type_v, width);
        return .{
            .head_dim = cache.head_dim,
            .value_dim = cache.value_dim,
            .width = width,
            .type_k = cache.type_k,
            .type_v = cache.type_v,
            .key_bytes = key_bytes,
            .block_bytes = block_bytes,
            .plane_bytes = block_bytes * num_blocks,
        };
    }

    /// K part of block `index` of a sequence; its V part is `key_bytes` further.
    pub inline fn block(
        layout: *const Layout,
        step: *const Step,
        cache: *const plan.Cache,
        sequence: usize,
        kv_head: usize,
        index: usize,
    ) [*]u8 {
        const tables = step.array(u32, step.data.block_tables);
        const id = tables[sequence * step.data.block_table_stride + index];
        const plane = step.kv + cache.offset + kv_head * layout.plane_bytes;
        return plane + id * layout.block_bytes;
    }
};

inline fn at(comptime T: type, part: [*]const u8) [*]align(1) const T {
    return @ptrCast(part);
}

inline fn target(comptime T: type, part: [*]u8) [*]align(1) T {
    return @ptrCast(part);
}

/// Rounds `n` values to f16 bits.
inline fn halfBits(comptime n: comptime_int, values: @Vector(n, f32)) @Vector(n, u16) {
    return @bitCast(@as(@Vector(n, f16), @floatCast(values)));
}

/// Scale and 32 (or fewer) integers of one quantised group.
const Group = struct { scale: u16, q: [quant_group]i8 };

fn quantizeGroup(comptime kv_type: plan.KvType, values: []const f32) Group {
    var group: Group = .{ .scale = 0, .q = @splat(0) };
    var peak: f32 = 0; // the value of the largest magnitude, with its sign
    for (values) |value| if (@abs(value) > @abs(peak)) {
        peak = value;
    };
    const ideal: f32 = if (kv_type == .q8_0) @abs(peak) / 127 else peak / -8;
    const stored: f16 = @floatCast(ideal);
    group.scale = @bitCast(stored);
    const scale: f32 = stored;
    if (scale == 0 or !std.math.isFinite(scale)) return group;
    const lowest: f32 = if (kv_type == .q8_0) -127 else -8;
    const highest: f32 = if (kv_type == .q8_0) 127 else 7;
    for (values, group.q[0..values.len]) |value, *q| {
        const x = std.math.clamp(value / scale, lowest, highest);
        q.* = if (std.math.isNan(x)) 0 else @intFromFloat(@floor(x + 0.5));
    }
    return group;
}

/// Stores one position's key `[head_dim]` in a block's K part.
pub fn storeKey(layout: *const Layout, part: [*]u8, slot: usize, row: []const f32) void {
    const dims = layout.head_dim;
    switch (layout.type_k) {
        .f32 => for (row, 0..) |value, d| {
            target(f32, part)[d * block_size + slot] = value;
        },
        .f16 => {
            var d: usize = 0;
            while (d + 8 <= dims) : (d += 8) {
                const bits: [8]u16 = halfBits(8, row[d..][0..8].*);
                inline for (bits, 0..) |half, i| {
                    target(u16, part)[(d + i) * block_size + slot] = half;
                }
            }
            while (d < dims) : (d += 1) {
                target(u16, part)[d * block_size + slot] = halfBits(1, .{row[d]})[0];
            }
        },
        .bf16 => for (0..dims / 2) |pair| {
            const bits = brain.round(2, row[2 * pair ..][0..2].*);
            const word = @as(u32, bits[0]) << 16 | bits[1];
            target(u32, part)[pair * block_size + slot] = word;
        },
        inline .q8_0, .q4_0 => |kv_type| {
            const bytes_per_group = if (kv_type == .q8_0) quant_group else quant_group / 2;
            const scales = part + keyScalesOffset(kv_type, dims);
            var d: usize = 0;
            while (d < dims) : (d += quant_group) {
                const count = @min(quant_group, dims - d);
                const group = quantizeGroup(kv_type, row[d..][0..count]);
                const index = d / quant_group;
                target(u16, scales)[index * block_size + slot] = group.scale;
                const column = part + index * bytes_per_group * block_size + slot;
                if (kv_type == .q8_0) {
                    for (group.q[0..count], 0..) |q, i| column[i * block_size] = @bitCast(q);
                } else for (0..count / 2) |i| {
                    column[i * block_size] = nibbles(group.q[2 * i], group.q[2 * i + 1]);
                }
            }
        },
    }
}

fn nibbles(low: i8, high: i8) u8 {
    return @as(u8, @intCast(low + 8)) | @as(u8, @intCast(high + 8)) << 4;
}

/// Stores one position's value `[value_dim]` in a block's V part.
pub fn storeValue(layout: *const Layout, part: [*]u8, slot: usize, row: []const f32) void {
    const width = layout.width;
    switch (layout.type_v) {
        .f32 => for (row, 0..) |value, d| {
            target(f32, part)[slot * width + d] = value;
        },
        .f16 => {
            const out = target(u16, part) + slot * width;
            var d: usize = 0;
            while (d + 8 <= row.len) : (d += 8) out[d..][0..8].* = halfBits(8, row[d..][0..8].*);
            while (d < row.len) : (d += 1) out[d] = halfBits(1, .{row[d]})[0];
        },
        .bf16 => {
            // Two threads may store the two positions of a pair: only its own half is written.
            const halves = target(u16, part) + slot / 2 * 2 * width + (1 - slot % 2);
            var d: usize = 0;
            while (d + 8 <= row.len) : (d += 8) {
                const bits: [8]u16 = brain.round(8, row[d..][0..8].*);
                inline for (bits, 0..) |half, i| halves[2 * (d + i)] = half;
            }
            while (d < row.len) : (d += 1) halves[2 * d] = brain.round(1, .{row[d]})[0];
        },
        inline .q8_0, .q4_0 => |kv_type| {
            const bytes = part + slot * valueRowBytes(kv_type, width);
            const scales = target(u16, part + valueScalesOffset(kv_type, width));
            var d: usize = 0;
            while (d < row.len) : (d += quant_group) {
                const count = @min(quant_group, row.len - d);
                const group = quantizeGroup(kv_type, row[d..][0..count]);
                scales[d / quant_group * block_size + slot] = group.scale;
                if (kv_type == .q8_0) {
                    for (group.q[0..count], bytes[d..][0..count]) |q, *byte| byte.* = @bitCast(q);
                } else for (bytes[d / 2 ..][0..16], group.q[0..16], group.q[16..]) |*byte, a, b| {
                    byte.* = nibbles(a, b);
                }
            }
        },
    }
}

/// Bytes of one position in a quantised V part.
pub fn valueRowBytes(kv_type: plan.KvType, width: usize) usize {
    if (kv_type == .q8_0) return width;
    return std.mem.alignForward(usize, width, quant_group) / 2;
}

/// From the start of a quantised V part to its scales.
pub fn valueScalesOffset(kv_type: plan.KvType, width: usize) usize {
    return valueRowBytes(kv_type, width) * block_size;
}

/// From the start of a quantised K part to its scales.
pub fn keyScalesOffset(kv_type: plan.KvType, dims: usize) usize {
    return block_size * (if (kv_type == .q8_0) dims else dims / 2);
}

/// `n` stored values of f32 or f16 from `index` on, as f32; exact.
pub inline fn load(
    comptime kv_type: plan.KvType,
    comptime n: comptime_int,
    part: [*]const u8,
    index: usize,
) @Vector(n, f32) {
    return switch (kv_type) {
        .f32 => at(f32, part)[index..][0..n].*,
        .f16 => simd.widenHalves(n, at(f16, part)[index..][0..n].*),
        .bf16, .q8_0, .q4_0 => @compileError("not stored value by value"),
    };
}

comptime {
    if (quant_group != block_size) @compileError("the byte formulas in the heading assume both 32");
    if (partBytes(.q8_0, 64) != 32 * 64 + 64 * 2) @compileError("q8_0 part size");
}
