//! Stored KV blocks in the form that the attention kernels read: f16 widened to f32 where many
//! rows share the work, quantised integers turned into bf16, which holds them exactly.
const plan = @import("../plan.zig");
const simd = @import("../simd.zig");
const kv_cache = @import("kv_cache.zig");

const block_size = kv_cache.block_size;
const quant_group = kv_cache.quant_group;
const Lanes = @Vector(16, i32);

/// f32 that one block's K part (n = head_dim) or V part (n = width) takes up in either form.
pub fn tileLen(n: usize) usize {
    return block_size * n;
}

/// Widens `count` f16 values to f32.
pub fn widenHalves(part: [*]const u8, output: [*]align(64) f32, count: usize) void {
    var i: usize = 0;
    while (i < count) : (i += 32) {
        output[i..][0..16].* = kv_cache.load(.f16, 16, part, i);
        output[i + 16 ..][0..16].* = kv_cache.load(.f16, 16, part, i + 16);
    }
}

/// The integers of a K part as pairs of dims `[head_dim / 2][32]`.
pub fn unpackKeys(kv_type: plan.KvType, dims: usize, part: [*]const u8, output: [*]i32) void {
    switch (kv_type) {
        inline .q8_0, .q4_0 => |known| unpackKeysOf(known, dims, part, output),
        else => unreachable,
    }
}

fn unpackKeysOf(
    comptime kv_type: plan.KvType,
    dims: usize,
    part: [*]const u8,
    output: [*]i32,
) void {
    for (0..dims / 2) |pair| inline for (0..2) |half| {
        const to = output[pair * block_size + half * 16 ..][0..16];
        switch (kv_type) {
            .q8_0 => {
                const from = part + pair * 2 * block_size + half * 16;
                to.* = pairOf(signedBytes(from), signedBytes(from + block_size));
            },
            .q4_0 => {
                const bytes = unsignedBytes(part + pair * block_size + half * 16);
                to.* = pairOf(lowNibble(bytes), highNibble(bytes));
            },
            else => comptime unreachable,
        }
    };
}

/// The integers of a V part as pairs of positions `[16][width]`.
pub fn unpackValues(kv_type: plan.KvType, width: usize, part: [*]const u8, output: [*]i32) void {
    switch (kv_type) {
        inline .q8_0, .q4_0 => |known| unpackValuesOf(known, width, part, output),
        else => unreachable,
    }
}

fn unpackValuesOf(
    comptime kv_type: plan.KvType,
    width: usize,
    part: [*]const u8,
    output: [*]i32,
) void {
    const row_bytes = kv_cache.valueRowBytes(kv_type, width);
    for (0..block_size / 2) |pair| {
        const even = part + 2 * pair * row_bytes;
        const odd = even + row_bytes;
        const row = output + pair * width;
        var d: usize = 0;
        switch (kv_type) {
            .q8_0 => while (d < width) : (d += 16) {
                row[d..][0..16].* = pairOf(signedBytes(even + d), signedBytes(odd + d));
            },
            .q4_0 => while (d < width) : (d += quant_group) {
                const first = unsignedBytes(even + d / 2);
                const second = unsignedBytes(odd + d / 2);
                row[d..][0..16].* = pairOf(lowNibble(first), lowNibble(second));
                if (d + 16 == width) break;
                row[d + 16 ..][0..16].* = pairOf(highNibble(first), highNibble(second));
            },
            else => comptime unreachable,
        }
    }
}

inline fn signedBytes(p: [*]const u8) Lanes {
    return simd.load(@Vector(16, i8), p);
}

inline fn unsignedBytes(p: [*]const u8) Lanes {
    return simd.load(@Vector(16, u8), p);
}

inline fn lowNibble(bytes: Lanes) Lanes {
    return (bytes & @as(Lanes, @splat(15))) - @as(Lanes, @splat(8));
}

inline fn highNibble(bytes: Lanes) Lanes {
    return (bytes >> @splat(4)) - @as(Lanes, @splat(8));
}

/// Pairs of bf16 from small integers, `first` in the high half. Up to 8 bits, no bit is lost.
inline fn pairOf(first: Lanes, second: Lanes) Lanes {
    const high: Lanes = @bitCast(@as(simd.Floats, @floatFromInt(first)));
    const low: @Vector(16, u32) = @bitCast(@as(simd.Floats, @floatFromInt(second)));
    return high | @as(Lanes, @bitCast(low >> @splat(16)));
}
