//! NVFP4: 64 weights in sub-blocks of 16, w = scale * E2M1[q] with unsigned E4M3 scales: integers of
//! the doubled table times half a scale. Per sub-block 8 bytes: low nibbles, then high ones.
const simd = @import("../simd.zig");
const block32 = @import("block32.zig");
const codebooks = @import("codebooks.zig");

pub const Block = extern struct { scales: [4]u8, quants: [4][8]u8 };
pub const block_len = 64;
comptime {
    if (@sizeOf(Block) != 36) @compileError("NVFP4 has 36 bytes a block");
}

pub fn dequantize(block: *const Block, output: *[block_len]f32) void {
    const d: [4]f32 = halfScales(4, @as(@Vector(4, u8), block.scales));
    for (block.quants, d, 0..) |bytes, scale, u| for (bytes, 0..) |byte, i| {
        const first: f32 = @floatFromInt(codebooks.doubled_e2m1[byte & 15]);
        const second: f32 = @floatFromInt(codebooks.doubled_e2m1[byte >> 4]);
        output[u * 16 + i] = scale * first;
        output[u * 16 + i + 8] = scale * second;
    };
}

/// Half of unsigned E4M3 floats (bias 7). The top bit is unused; 0x7f alone, a NaN, counts as zero.
/// Subnormal floats, which take Zen 4 many cycles, do not occur.
pub inline fn halfScales(comptime n: usize, codes: @Vector(n, u32)) @Vector(n, f32) {
    const U = @Vector(n, u32);
    const F = @Vector(n, f32);
    const nan: U = @splat(0x7f);
    const valid = @select(u32, codes == nan, @as(U, @splat(0)), codes & nan);
    // What codes from 8 on stand for. Smaller ones are (1 + m / 8) * 2^-8 here, not m / 8 * 2^-7.
    const v: F = @bitCast((valid << @splat(20)) + @as(U, @splat((127 - 8) << 23)));
    const twice = (v + v) - @as(F, @splat(0x1p-7));
    return @select(f32, twice < v, twice, v);
}

pub const levels = codebooks.doubled_e2m1;
pub const is_signed = false;
pub const offset = 16;
pub const has_min = false;
/// Elements 0..16 and 16..32 of 32 weights have a scale each.
pub const has_two_scales = true;

/// First bytes of the four neighbouring 32s.
const starts = [4]usize{ 4, 20, 40, 56 };

pub inline fn quants(p: [*]const u8) block32.Quants {
    var result: block32.Quants = undefined;
    inline for (&result, 0..) |*vector, half| {
        var twice: [4]@Vector(2, u64) = undefined;
        inline for (&twice, starts) |*lane, at| lane.* = @splat(simd.load(u64, p + at + half * 8));
        const bytes: simd.Bytes = if (simd.has_avx512)
            @shuffle(u8, simd.load(simd.Bytes, p + half * 8), undefined, eights)
        else
            @bitCast(simd.joinFour(u64, 2, twice));
        const nibbles = simd.nibblesOfEights(bytes, .{ 0, 4, 0, 4, 0, 4, 0, 4 });
        vector.* = simd.lookUp16(nibbles, levels, offset);
    }
    return result;
}
const eights: [64]i32 = blk: {
    @setEvalBranchQuota(10_000);
    var indices: [64]i32 = undefined;
    for (&indices, 0..) |*index, i| index.* = @intCast(starts[i / 16] + i % 8);
    break :blk indices;
};

pub inline fn scales(p: [4][*]const u8) simd.Floats {
    return halfScales(16, block32.scaleBytes(p, .{ 0, 2, 36, 38 }));
}
/// The scales of elements 16..32.
pub inline fn secondScales(p: [4][*]const u8) simd.Floats {
    return halfScales(16, block32.scaleBytes(p, .{ 1, 3, 37, 39 }));
}
